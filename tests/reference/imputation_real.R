# Real data sets with missing values, imputed m = 100 to 400 times by R's two-level imputers and pooled by Rubin's rules.
#
#   Rscript imputation_real.R FOLDER [NAME ...]        writes imputation_real.json beside this script and the prepared data, one CSV each, to FOLDER
#
# Data: mice popmis and brandsma, mitml studentratings and leadership, jomo JSPmiss and cldata, prepared as `prepare` says. Sites are split into
# two "arms" by the parity of their rank where the data have none (an imputation model of a trial holds the arm, so the peers' models hold it too).
# Peers: mice 2l.pan by chained equations, pan's and jomo's joint models. All three put an inverse-Wishart prior of unit scale on the site
# covariance in the units of the data; numbers are therefore multiplied by 10 (2l.pan), or standardised with the prior's scale cut to .01
# (panImpute, jomo), so that the data speak and not the units. jomo's prior of the covariance within sites keeps its default, the identity, but for
# "jomo, weak", which has the scale .01 there too, as pan.

suppressMessages({library(mice); library(mitml); library(jomo); library(lme4); library(jsonlite)})
folder <- commandArgs(trailingOnly = TRUE)[1]
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
only <- commandArgs(trailingOnly = TRUE)[-1]

parity <- function(site) as.integer(as.integer(factor(site)) %% 2)
prepare <- list(
  popmis = function() { d <- mice::popmis; data.frame(site = d$school, arm = parity(d$school), y = as.numeric(d$popular), sex = d$sex, texp = as.numeric(d$texp)) },
  brandsma = function() { d <- mice::brandsma; data.frame(site = d$sch, arm = parity(d$sch), y = d$lpo, y_0 = d$lpr, iqv = d$iqv, ses = d$ses) },
  studentratings = function() { d <- mitml::studentratings; data.frame(site = d$ID, arm = as.integer(d$FedState == "SH"), y = d$ReadDis, read = d$ReadAchiev, cogn = d$CognAbility, climate = d$SchClimate, girl = as.integer(d$Sex == "Girl")) },
  leadership = function() { d <- mitml::leadership; data.frame(site = d$GRPID, arm = parity(d$GRPID), y = d$JOBSAT, neglead = d$NEGLEAD, cohes = d$COHES, wload = as.integer(d$WLOAD == "high")) },
  JSPmiss = function() { data(JSPmiss, package = "jomo"); d <- JSPmiss; data.frame(site = as.integer(as.character(d$school)), arm = parity(as.integer(as.character(d$school))), y = d$english, ravens = d$ravens, fluent = as.integer(as.character(d$fluent)), sex = d$sex, behaviour = as.integer(d$behaviour) - 1L) },
  JSPmiss_numbers = function() prepare$JSPmiss()[, c("site", "arm", "y", "ravens", "sex", "behaviour")],
  cldata = function() { data(cldata, package = "jomo"); d <- cldata; data.frame(site = d$city, arm = parity(d$city), y = d$measure, age = d$age, sex = d$sex, social = as.integer(as.character(d$social))) }
)
formulas <- list(
  popmis = y ~ sex + texp + (1 | site),
  brandsma = y ~ y_0 + iqv + ses + (1 | site),
  studentratings = y ~ arm + girl + read + climate + (1 | site),
  leadership = y ~ neglead + cohes + wload + (1 | site),
  JSPmiss = y ~ ravens + sex + factor(fluent) + (1 | site),
  JSPmiss_numbers = y ~ ravens + sex + (1 | site),
  cldata = y ~ age + sex + factor(social) + (1 | site)
)

pooled <- function(frames, formula) {
  fits <- lapply(frames, function(d) lmer(formula, d, REML = TRUE, control = lmerControl(check.conv.singular = "ignore")))
  q <- sapply(fits, fixef); u <- sapply(fits, function(f) diag(as.matrix(vcov(f))))
  icc <- sapply(fits, function(f) { v <- as.data.frame(VarCorr(f))$vcov; v[1] / sum(v) })
  b <- apply(q, 1, var); w <- rowMeans(u); m <- length(fits); t <- w + (1 + 1 / m) * b
  # a joint model's sets come from one chain, which remembers: the means of 20 stretches of it tell how much
  stretch <- rep(1:20, each = m %/% 20, length.out = m)
  of_stretches <- function(x) { a <- tapply(x, stretch, mean); sd(a) / sqrt(length(a)) }
  list(terms = gsub("factor\\((.*)\\)", "\\1=", rownames(q)), estimate = unname(rowMeans(q)), std_error = unname(sqrt(t)), lambda = unname((1 + 1 / m) * b / t),
       mc_error = unname(sqrt(b / m)), mc_error_stretches = unname(apply(q, 1, of_stretches)),
       icc = mean(icc), icc_mc_error = sd(icc) / sqrt(m), icc_mc_error_stretches = of_stretches(icc), m = m)
}
stretch <- function(d, names, by) { for (n in names) d[[n]] <- d[[n]] * by; d }

# chained equations: every number by 2l.pan (random intercept), everything else complete or by the method named
by_2lpan <- function(d, numbers, maxit, m = 100) {
  big <- stretch(d, numbers, 10)
  start <- mice(big, maxit = 0)
  method <- start$method; pred <- start$predictorMatrix
  pred[, ] <- 1; diag(pred) <- 0; pred[, "site"] <- -2; pred["site", ] <- 0
  method[] <- ifelse(colSums(is.na(big)) > 0, "2l.pan", "")
  sets <- mice(big, m = m, maxit = maxit, method = method, predictorMatrix = pred, paniter = 500, printFlag = FALSE, seed = 20261128)
  lapply(1:m, function(k) stretch(complete(sets, k), numbers, 1 / 10))
}
# the joint model of pan (numbers only) or jomo (numbers and factors), one level
by_joint <- function(d, numbers, factors, fixed, level2 = character(), engine, m = 100, between = 200, seed = 20261128, level1 = NULL) {
  z <- d; place <- list()
  for (n in c(numbers, level2)) { place[[n]] <- c(mean(d[[n]], na.rm = TRUE), sd(d[[n]], na.rm = TRUE)); z[[n]] <- (d[[n]] - place[[n]][1]) / place[[n]][2] }
  back <- function(x) { for (n in names(place)) x[[n]] <- x[[n]] * place[[n]][2] + place[[n]][1]; x }
  set.seed(seed)
  if (engine == "pan") {
    k <- length(numbers)
    f <- as.formula(paste(paste(numbers, collapse = " + "), "~ 1 +", paste(fixed, collapse = " + "), "+ (1 | site)"))
    invisible(capture.output(s <- panImpute(z, formula = f, n.burn = 2000, n.iter = between, m = m, prior = list(a = k, Binv = diag(0.01, k), c = k, Dinv = diag(0.01, k)), silent = TRUE)))
    return(lapply(mitmlComplete(s, "all"), back))
  }
  Y <- z[, c(numbers, factors), drop = FALSE]
  for (n in factors) Y[[n]] <- factor(Y[[n]])
  X <- cbind(1, z[, fixed, drop = FALSE]); names(X)[1] <- "cons"
  latents <- length(numbers) + sum(0, unlist(lapply(factors, function(n) nlevels(Y[[n]]) - 1)))
  arguments <- list(Y = Y, X = X, clus = data.frame(site = z$site), nburn = 2000, nbetween = between, nimp = m, output = 0, out.iter = 1e9)
  if (!is.null(level1)) arguments$l1cov.prior <- diag(level1, latents) # jomo's own: the identity
  if (length(level2)) {
    once <- !duplicated(z$site)
    arguments$Y2 <- z[, level2, drop = FALSE]
    arguments$X2 <- X[, c("cons", "arm")]
    arguments$l2cov.prior <- diag(0.01, latents + length(level2))
  } else arguments$l2cov.prior <- diag(0.01, latents)
  invisible(capture.output(s <- do.call(jomo, arguments)))
  lapply(1:m, function(k) {
    x <- s[s$Imputation == k, ]
    out <- data.frame(site = as.character(x$clus), x[, setdiff(names(x), c("clus", "id", "Imputation")), drop = FALSE])
    for (n in factors) out[[n]] <- as.integer(as.character(out[[n]]))
    back(out)
  })
}

pan <- function(numbers, fixed, m = 400) function(d) by_joint(d, numbers, character(), fixed, engine = "pan", m = m, between = 100)
jobs <- list(
  popmis = list("2l.pan" = function(d) by_2lpan(d, c("y", "texp"), 1), pan = pan("y", c("arm", "sex", "texp"))),
  brandsma = list(pan = pan(c("y", "y_0", "iqv", "ses"), "arm", m = 100)),
  studentratings = list("2l.pan" = function(d) by_2lpan(d, c("y", "read", "cogn", "climate"), 10), pan = pan(c("y", "climate"), c("arm", "read", "cogn", "girl")),
                        jomo = function(d) by_joint(d, c("y", "climate"), character(), c("arm", "read", "cogn", "girl"), engine = "jomo")),
  leadership = list(jomo = function(d) by_joint(d, c("y", "neglead"), "wload", "arm", level2 = "cohes", engine = "jomo")),
  # two chains: one chain's sets are correlated
  JSPmiss = list(jomo = function(d) unlist(lapply(c(20261128, 4), function(seed) by_joint(d, c("y", "ravens"), "fluent", c("arm", "sex", "behaviour"), engine = "jomo", seed = seed)), recursive = FALSE)),
  JSPmiss_numbers = list(pan = pan(c("y", "ravens"), c("arm", "sex", "behaviour")),
                         jomo = function(d) by_joint(d, c("y", "ravens"), character(), c("arm", "sex", "behaviour"), engine = "jomo"),
                         "jomo, weak" = function(d) by_joint(d, c("y", "ravens"), character(), c("arm", "sex", "behaviour"), engine = "jomo", between = 150, seed = 4, level1 = 0.01)),
  cldata = list(jomo = function(d) by_joint(d, "y", "social", c("arm", "age", "sex"), engine = "jomo"))
)

out <- list(made_by = "imputation_real.R", versions = lapply(c(R = "base", mice = "mice", mitml = "mitml", pan = "pan", jomo = "jomo", lme4 = "lme4"), function(p) as.character(packageVersion(p))), data = list())
path <- file.path(here, "imputation_real.json")
if (length(only) && file.exists(path)) out$data <- fromJSON(path, simplifyVector = FALSE)$data
for (name in if (length(only)) only else names(jobs)) {
  d <- prepare[[name]]()
  write.csv(d, file.path(folder, paste0(name, ".csv")), row.names = FALSE, na = "")
  entry <- list(rows = nrow(d), sites = length(unique(d$site)), missing = as.list(colSums(is.na(d))), formula = deparse(formulas[[name]]), peers = list())
  for (peer in names(jobs[[name]])) {
    t <- system.time(frames <- jobs[[name]][[peer]](d))[["user.self"]]
    entry$peers[[peer]] <- c(pooled(frames, formulas[[name]]), cpu_seconds = t)
    cat(name, peer, t, "s\n"); print(data.frame(entry$peers[[peer]][c("terms", "estimate", "std_error", "lambda")])); cat("ICC", entry$peers[[peer]]$icc, "\n")
  }
  out$data[[name]] <- entry
  write_json(out, path, auto_unbox = TRUE, digits = 10, pretty = TRUE)
}

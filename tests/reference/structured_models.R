# Makes structured_models.json: random slopes, three nested factors (lme4, lmerTest, pbkrtest) and a residual variance an arm (nlme).
#   Rscript structured_models.R          (from this folder)
# The data are simulated here, rounded to 6 significant digits and stored.
source("lmer_at_optimum.R")

make <- function(seed, pairs, size, slope, sd_pair, sd_site = 0, rise = 1, people = 1) {
  set.seed(seed)
  J <- 2 * pairs
  n_j <- pmax(2, rpois(J, size))
  site <- rep(seq_len(J), n_j * people)
  n <- length(site)
  pair <- (site + 1) %/% 2
  arm <- as.numeric(site %% 2 == 0)
  u0 <- rnorm(pairs, 0, sd_pair); u1 <- 0.5 * slope / sd_pair * u0 + rnorm(pairs, 0, slope * sqrt(.75))
  x <- signif(rnorm(n), 5); time <- rep_len(0:2, n)
  f <- sample(c("a", "b", "c"), n, TRUE)
  person <- (seq_len(n) + people - 1) %/% people
  us <- rnorm(J, 0, sd_site)
  e <- rnorm(n) * ifelse(arm == 1, rise, 1)
  y <- signif(2 + .3 * arm + .4 * x + .1 * time + u0[pair] + u1[pair] * arm + us[site] + (people > 1) * rnorm(max(person), 0, .5)[person] + e, 6)
  data.frame(pair = paste0("P", sprintf("%02d", pair)), site = paste0("S", sprintf("%02d", site)), person = paste0("Q", sprintf("%04d", person)),
             arm = ifelse(arm == 1, "intervention", "control"), armn = arm, x = x, time = time, f = f, y = y)
}

nlme_case <- function(id, d, fixed, random, groups) {
  suppressMessages(library(nlme))
  out <- list(id = id, fixed = fixed, random = random, groups = I(groups))
  for (method in c("REML", "ML")) {
    m <- lme(as.formula(paste("y ~", fixed)), d, random = as.formula(random), weights = varIdent(form = ~1 | arm), method = method,
             control = lmeControl(opt = "nlminb", tolerance = 1e-10, niterEM = 100, maxIter = 200, msMaxIter = 2000, msTol = 1e-13, returnObject = TRUE))
    ratio <- coef(m$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)
    s <- m$sigma * ratio
    out[[method]] <- list(estimate = strip(fixef(m)), std_error = strip(sqrt(diag(m$varFix))), names = I(names(fixef(m))), log_likelihood = as.numeric(logLik(m)),
                          residual_sd = as.list(s), variances = suppressWarnings(na.omit(strip(VarCorr(m)[, "Variance"]))))
  }
  cat(id, format(out$REML$log_likelihood, digits = 8), "\n")
  detach("package:nlme", unload = FALSE)
  out
}

sets <- list(
  A1 = make(1, 12, 6, .8, .5), A2 = make(2, 12, 6, .05, .5), A3 = make(3, 20, 4, .6, .4), A4 = make(4, 8, 9, 1, .3), A5 = make(5, 30, 3, .4, .4),
  B1 = make(6, 16, 5, .8, .4, .3), C1 = make(7, 10, 8, .4, .4, .4), C2 = make(8, 9, 10, .01, .3, .5), D1 = make(9, 12, 3, .01, .5, .4, people = 3),
  V1 = make(10, 15, 6, .01, .4, .4, rise = 2), V2 = make(11, 20, 5, .01, .5, .3, rise = .6), V3 = make(12, 18, 6, .8, .5, 0, rise = 1.8))
cases <- list(
  lmer_case("A1", sets$A1, "arm", "(1 + arm | pair)"),
  lmer_case("A1x", sets$A1, "arm + x + f", "(1 + arm | pair)"),
  lmer_case("A2", sets$A2, "arm + x", "(1 + arm | pair)"),
  lmer_case("A3", sets$A3, "arm + x", "(1 + arm | pair)"),
  lmer_case("A4", sets$A4, "arm", "(1 + arm | pair)"),
  lmer_case("A5", sets$A5, "arm + x + f", "(1 + arm | pair)"),
  lmer_case("A3u", sets$A3, "arm + x", "(1 | pair) + (0 + armn | pair)"),
  lmer_case("B1", sets$B1, "arm + x", "(1 | pair) + (0 + armn | pair) + (1 | site)"),
  lmer_case("C1", sets$C1, "arm + time", "(1 + time | site)"),
  lmer_case("C2", sets$C2, "arm + time + x", "(1 + time | site)"),
  lmer_case("C1p", sets$C1, "arm + time", "(1 | pair) + (1 + time | site)"),
  lmer_case("D1", sets$D1, "arm + x", "(1 | pair) + (1 | site) + (1 | person)"),
  lmer_case("X1", sets$C1, "arm + x", "(1 + x | site)"))
hetero <- list(
  c(nlme_case("V1", sets$V1, "arm + x", "~1|site", "site"), set = "V1"),
  c(nlme_case("V1p", sets$V1, "arm + x", "~1|pair/site", c("pair", "site")), set = "V1"),
  c(nlme_case("V2", sets$V2, "arm + f", "~1|site", "site"), set = "V2"),
  c(nlme_case("V2p", sets$V2, "arm + x + f", "~1|pair/site", c("pair", "site")), set = "V2"),
  c(nlme_case("V3", sets$V3, "arm + x", "~1 + arm|pair", "pair"), set = "V3"),
  c(nlme_case("V3s", sets$V3, "arm", "~1|site", "site"), set = "V3"))
versions <- sapply(c("lme4", "lmerTest", "pbkrtest", "nlme", "numDeriv"), function(p) as.character(packageVersion(p)))
write(toJSON(list(about = "made by structured_models.R; data simulated there, to 6 significant digits", R = R.version.string, packages = as.list(versions),
                  sets = lapply(sets, as.list), lmer = cases, nlme = hetero), auto_unbox = TRUE, digits = NA), "structured_models.json")

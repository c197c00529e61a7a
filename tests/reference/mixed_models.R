# Makes mixed_models.json: linear mixed models with nested random intercepts, as lme4, lmerTest and pbkrtest see them.
#   Rscript mixed_models.R          (from this folder)
# Each data set is simulated here, rounded to 6 significant digits, and stored, so that both sides read the same numbers. lme4's own optimum is good
# to about 1e-7; here its deviance function is taken to the optimum by Newton's method with Richardson derivatives (numDeriv), a variance at zero is
# set to exactly zero when the deviance rises from there, and everything else is computed at that point.
suppressMessages({library(lme4); library(lmerTest); library(pbkrtest); library(numDeriv); library(jsonlite)})
options(warn = 1)

polish <- function(devfun, theta) {
  f <- function(th) devfun(th)
  for (k in seq_along(theta)) {
    zero <- theta; zero[k] <- 0
    near <- theta; near[k] <- 1e-3
    if (theta[k] < 1e-2 && f(zero) <= f(near) && f(zero) <= f(theta) + 1e-9) theta[k] <- 0
  }
  # Newton in the variance ratio theta^2, where the deviance is nearest to a parabola; wide differences, so that rounding does not reach the root
  free <- theta > 0
  wide <- list(eps = 1e-4, d = 0.02, zero.tol = 1e-12, r = 6, v = 2)
  for (i in 1:25) {
    if (!any(free)) break
    g <- function(x) { th <- theta; th[free] <- sqrt(x); f(th) }
    x <- theta[free]^2
    step <- solve(numDeriv::hessian(g, x, method.args = wide), numDeriv::grad(g, x, method.args = wide))
    theta[free] <- sqrt(x - step)
    if (max(abs(step / x)) < 1e-10) break
  }
  for (k in which(!free)) {  # the deviance must rise from zero
    up <- theta; up[k] <- 1e-2
    stopifnot(f(up) >= f(theta))
  }
  stopifnot(all(theta >= 0))
  theta
}

fit_at_optimum <- function(formula, data, REML, weights = NULL) {
  parsed <- if (is.null(weights)) lFormula(formula, data, REML = REML) else lFormula(formula, data, REML = REML, weights = weights)
  devfun <- do.call(mkLmerDevfun, parsed)
  opt <- optimizeLmer(devfun)
  theta <- polish(devfun, opt$par)
  value <- devfun(theta)
  m <- mkMerMod(environment(devfun), list(par = theta, fval = value, conv = 0, message = ""), parsed$reTrms, parsed$fr,
                match.call())
  list(model = m, devfun = devfun, theta = theta)
}

strip <- function(x) unname(as.numeric(x))

one <- function(id, d, terms, groups, joint, weighted) {
  random <- paste0("(1|", groups, ")", collapse = " + ")
  formula <- as.formula(paste("y ~", paste(c(terms, random), collapse = " + ")))
  w <- if (weighted) d$w else NULL
  r <- fit_at_optimum(formula, d, TRUE, w)
  m <- r$model
  vc <- as.data.frame(VarCorr(m)); tau <- vc$vcov[match(groups, vc$grp)]
  out <- list(reml = list(beta = strip(fixef(m)), se = strip(sqrt(diag(vcov(m)))), variances = I(tau), sigma2 = sigma(m)^2,
                          log_likelihood = as.numeric(logLik(m)), singular = I(tau == 0)))
  p <- length(fixef(m))
  devfun <- r$devfun
  if (weighted) {
    # pbkrtest leaves the weights out of its residual matrix, so only the fit itself is a reference
    out$satterthwaite <- NULL
  } else {
    lt <- lmerTest:::as_lmerModLT(m, devfun); devfun(r$theta)
    out$satterthwaite <- list(df = sapply(1:p, function(i) contest1D(lt, as.numeric(1:p == i))$df))
    PhiA <- vcovAdj(m)
    out$kenward_roger <- list(se = strip(sqrt(diag(as.matrix(PhiA)))),
                              df = sapply(1:p, function(i) Lb_ddf(as.numeric(1:p == i), vcov(m), PhiA)))
    if (length(joint)) {
      L <- diag(p)[joint, , drop = FALSE]
      kr <- pbkrtest:::.KR_adjust(PhiA, vcov(m), L, fixef(m), 0)
      sa <- contestMD(lt, L)
      out$joint <- list(columns = I(joint - 1), kr_f = kr$Fstat, kr_df = kr$ddf, kr_scaling = kr$F.scaling, satt_f = sa[["F value"]], satt_df = sa$DenDF)
    }
  }
  ml <- fit_at_optimum(formula, d, FALSE, w)$model
  vc <- as.data.frame(VarCorr(ml))
  out$ml <- list(beta = strip(fixef(ml)), se = strip(sqrt(diag(vcov(ml)))), variances = I(vc$vcov[match(groups, vc$grp)]), sigma2 = sigma(ml)^2,
                 log_likelihood = as.numeric(logLik(ml)))
  c(list(id = id, terms = I(terms), groups = I(groups)), out)
}

simulate_one <- function(seed, J, size, spread, tau2, pair2, terms, nest, weighted) {
  set.seed(seed)
  if (nest == "pair") stopifnot(J %% 2 == 0)
  n_j <- if (spread == 0) rep(size, J) else pmax(1, pmin(rnbinom(J, mu = size, size = 1 / spread), 12 * size))
  if (nest == "person") n_j <- n_j * 3
  site <- rep(seq_len(J), n_j)
  n <- length(site)
  arm_j <- if (nest == "pair") as.vector(sapply(1:(J / 2), function(i) sample(0:1))) else sample(rep(0:1, length.out = J))
  pair_j <- (seq_len(J) + 1) %/% 2
  z_j <- signif(rnorm(J), 4)
  d <- data.frame(site = factor(site), pair = factor(pair_j[site]), person = factor((seq_len(n) + 2) %/% 3), arm = arm_j[site], z = z_j[site],
                  x = signif(rnorm(n) + rnorm(J, 0, .4)[site], 5), b = rbinom(n, 1, .4),
                  f = factor(sample(c("a", "b", "c"), n, TRUE, c(.5, .3, .2)), levels = c("a", "b", "c")), w = signif(runif(n, .5, 3), 4))
  u <- rnorm(J, 0, sqrt(tau2))[site]
  if (nest == "pair") u <- u + rnorm(J / 2, 0, sqrt(pair2))[pair_j[site]]
  if (nest == "person") u <- u + rnorm(nlevels(d$person), 0, sqrt(pair2))[d$person]
  e <- rnorm(n) / (if (weighted) sqrt(d$w) else 1)
  d$y <- signif(.3 * d$arm + .5 * d$x - .2 * d$b + .2 * d$z + u + e, 6)
  list(data = d, n_j = n_j, arm_j = arm_j, z_j = z_j)
}

spec <- expand.grid(stringsAsFactors = FALSE, tau2 = c(0, .02, .1, .4), k = 1:15)
sites <- c(6, 8, 10, 12, 16, 20, 24, 30, 40, 12, 8, 60, 20, 90, 14)
sizes <- c(8, 12, 5, 10, 4, 6, 5, 3, 4, 9, 6, 3, 4, 2, 10)
spreads <- c(0, .3, 0, 1, .3, 0, .5, 0, .5, 1.5, 0, .4, .8, 0, .5)
forms <- list("arm", "arm", c("arm", "x"), c("arm", "x", "b"), c("arm", "z"), c("arm", "x", "f"), c("arm", "x", "b", "f"), c("arm", "z", "x"),
              c("arm", "x", "b", "f"), c("arm", "x"), c("arm", "x"), c("arm", "x", "f"), c("arm", "x", "z"), c("arm", "x"), c("arm", "x", "f"))
nests <- c("site", "site", "site", "site", "site", "site", "site", "site", "site", "site", "pair", "pair", "pair", "site", "person")

cases <- list()
for (i in seq_len(nrow(spec))) {
  k <- spec$k[i]; tau2 <- spec$tau2[i]; nest <- nests[k]
  repeat_seeds <- if (nest == "site") 1 else 2
  for (s in seq_len(repeat_seeds)) {
    seed <- 1000 * i + s
    pair2 <- if (s == 1) .15 else 0
    weighted <- nest == "site" && k %in% c(4, 9) && tau2 == .4
    sim <- simulate_one(seed, sites[k], sizes[k], spreads[k], tau2, pair2, forms[[k]], nest, weighted)
    groups <- switch(nest, site = "site", pair = c("pair", "site"), person = c("site", "person"))
    terms <- forms[[k]]
    X <- model.matrix(as.formula(paste("~", paste(terms, collapse = "+"))), sim$data)
    joint <- grep("^f", colnames(X)); if (!length(joint) && ncol(X) > 2) joint <- 2:ncol(X)
    id <- sprintf("%s_%02d_%s_%d", nest, k, format(tau2), s)
    cat(id, nrow(sim$data), "\n")
    fitted <- one(id, sim$data, terms, groups, joint, weighted)
    d <- sim$data
    stored <- list(site_sizes = sim$n_j, arm = sim$arm_j, y = d$y)
    if ("z" %in% terms) stored$z <- sim$z_j
    if ("x" %in% terms) stored$x <- d$x
    if ("b" %in% terms) stored$b <- d$b
    if ("f" %in% terms) stored$f <- paste(as.character(d$f), collapse = "")
    if (weighted) stored$w <- d$w
    cases[[length(cases) + 1]] <- c(fitted, list(data = stored))
  }
}
singular <- sum(sapply(cases, function(x) any(unlist(x$reml$singular))))
cat(length(cases), "data sets,", singular, "singular\n")
stopifnot(length(cases) >= 60, singular >= 15)
versions <- sapply(c("lme4", "lmerTest", "pbkrtest", "numDeriv"), function(p) as.character(packageVersion(p)))
write(toJSON(list(about = "made by mixed_models.R; data to 6 significant digits; rows sorted by site; person: three rows each",
                  R = R.version.string, packages = as.list(versions), cases = cases), auto_unbox = TRUE, digits = NA), "mixed_models.json")

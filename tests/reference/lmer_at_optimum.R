# Shared by structured_models.R and real_sets.R: lme4's fit taken to its optimum, with what lme4, lmerTest and pbkrtest say there.
# A part of theta that is zero at lme4's own optimum is held at zero if the deviance allows it; the rest goes on by Newton's method with Richardson
# derivatives (numDeriv).
suppressMessages({library(lme4); library(lmerTest); library(pbkrtest); library(numDeriv); library(jsonlite)})
options(warn = 1)
strip <- function(x) unname(as.numeric(x))

polish <- function(f, theta) {
  start <- f(theta)
  for (k in seq_along(theta)) { zero <- theta; zero[k] <- 0; if (abs(theta[k]) < 2e-2 && f(zero) <= start + 1e-7) theta[k] <- 0 }
  free <- theta != 0
  wide <- list(eps = 1e-4, d = 0.01, zero.tol = 1e-12, r = 6, v = 2)
  for (i in 1:30) {
    if (!any(free)) break
    g <- function(x) { th <- theta; th[free] <- x; f(th) }
    step <- solve(numDeriv::hessian(g, theta[free], method.args = wide), numDeriv::grad(g, theta[free], method.args = wide))
    theta[free] <- theta[free] - step
    if (max(abs(step / theta[free])) < 1e-10) break
  }
  stopifnot(f(theta) <= start + 1e-6)
  theta
}

lmer_case <- function(id, d, fixed, random, L = NULL, ml = TRUE) {
  formula <- as.formula(paste("y ~", fixed, "+", random))
  at <- function(REML) {
    parsed <- lFormula(formula, d, REML = REML)
    devfun <- do.call(mkLmerDevfun, parsed)
    opt <- optimizeLmer(devfun, optimizer = "bobyqa", control = list(rhoend = 1e-10, maxfun = 1e5))
    theta <- polish(devfun, opt$par)
    list(m = mkMerMod(environment(devfun), list(par = theta, fval = devfun(theta), conv = 0, message = ""), parsed$reTrms, parsed$fr, quote(f())),
         devfun = devfun, theta = theta)
  }
  r <- at(TRUE); m <- r$m
  vc <- as.data.frame(VarCorr(m))
  p <- length(fixef(m))
  lt <- lmerTest:::as_lmerModLT(m, r$devfun); r$devfun(r$theta)
  satt <- sapply(1:p, function(i) contest1D(lt, as.numeric(1:p == i))$df)
  PhiA <- vcovAdj(m)
  out <- list(id = id, formula = paste("y ~", fixed, "+", random), names = I(names(fixef(m))), theta = I(r$theta),
              estimate = strip(fixef(m)), std_error = strip(sqrt(diag(vcov(m)))), satt_df = satt,
              kr_std_error = strip(sqrt(diag(as.matrix(PhiA)))), kr_df = sapply(1:p, function(i) Lb_ddf(as.numeric(1:p == i), vcov(m), PhiA)),
              grp = I(vc$grp), var1 = I(ifelse(is.na(vc$var1), "", vc$var1)), var2 = I(ifelse(is.na(vc$var2), "", vc$var2)), vcov = I(vc$vcov),
              log_likelihood = as.numeric(logLik(m)), ml_log_likelihood = as.numeric(logLik(at(FALSE)$m)))
  if (p > 2) {
    L <- diag(p)[-1, , drop = FALSE]
    kr <- pbkrtest:::.KR_adjust(PhiA, vcov(m), L, fixef(m), 0)
    sa <- contestMD(lt, L)
    out$joint <- list(kr_f = kr$Fstat, kr_df = kr$ddf, satt_f = sa[["F value"]], satt_df = sa$DenDF)
  }
  re <- ranef(m, condVar = TRUE)
  out$ranef <- lapply(re, function(x) {
    v <- attr(x, "postVar")
    c(list(values = I(strip(as.matrix(x))), level = I(rownames(x))),
      if (!is.list(v)) list(variance = I(strip(sapply(seq_len(dim(v)[3]), function(k) diag(as.matrix(v[, , k])))))))
  })
  cat(id, "theta", format(r$theta, digits = 3), "satt", format(satt, digits = 4), "\n")
  out
}


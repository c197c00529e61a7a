# Makes structured_profiles.json: profile-likelihood limits (maximum likelihood, 95%) of standard deviations and correlations of models with
# random slopes and three nested factors, on the sets of structured_models.json, by lme4's own deviance.
#   Rscript structured_profiles.R          (from this folder)
# lme4's confint reads its limits off splines through a coarse profile, which costs up to 2e-3; here the same deviance (lme4:::devfun2, the
# function that confint profiles) is minimised with one parameter held, and the limit is the root of that.
suppressMessages({library(lme4); library(jsonlite)})
sets <- fromJSON("structured_models.json")$sets
one <- function(id, set, fixed, random) {
  d <- as.data.frame(sets[[set]])
  m <- suppressMessages(lmer(as.formula(paste("y ~", fixed, "+", random)), d, REML = FALSE))
  f <- lme4:::devfun2(m, useSc = TRUE, signames = FALSE)
  fit <- attr(f, "optimum"); fit <- fit[seq_len(length(attr(f, "stderr")) * 0 + length(m@theta) + 1)]
  cor <- grepl("^cor", names(fit)); k <- length(fit)
  # free parameters: standard deviations as they are (their sign does not matter), correlations by tanh
  from <- function(q) ifelse(cor, tanh(q), abs(q)); to <- function(p) ifelse(cor, atanh(pmin(pmax(p, -.999), .999)), pmax(p, .02))
  value <- function(p) { v <- try(f(p), silent = TRUE); if (inherits(v, "try-error") || !is.finite(v)) 1e9 else v }
  minimum <- function(h, x, start) {
    g <- function(q) { p <- numeric(k); p[-h] <- ifelse(cor[-h], tanh(q), abs(q)); p[h] <- x; value(p) }
    best <- Inf
    for (s in start) { o <- list(par = to(s)[-h]); for (r in 1:3) o <- optim(o$par, g, control = list(reltol = 1e-13, maxit = 4000)); best <- min(best, o$value) }
    best
  }
  o <- list(par = to(fit)); for (r in 1:4) o <- optim(o$par, function(q) value(from(q)), control = list(reltol = 1e-14, maxit = 4000))
  at <- from(o$par); least <- o$value; z <- qnorm(.975)
  starts <- list(at, ifelse(cor, at / 2, pmax(at, .2)))
  low <- high <- numeric(k)
  for (h in seq_len(k)) {
    root <- function(x) sqrt(max(minimum(h, x, starts) - least, 0)) - z
    bottom <- if (cor[h]) -1 + 1e-12 else if (h == k) at[h] / 3 else 0
    low[h] <- if (root(bottom) <= 0) (if (cor[h]) -1 else 0) else uniroot(root, c(bottom, at[h]), tol = 1e-7)$root
    top <- if (cor[h]) 1 - 1e-12 else { t <- max(at[h], .2) * 1.5; while (root(t) < 0) t <- t * 1.5; t }
    high[h] <- if (cor[h] && root(top) <= 0) 1 else uniroot(root, c(at[h], top), tol = 1e-7)$root
  }
  cat(id, names(fit), "\n", low, "\n", high, "\n")
  list(id = id, set = set, fixed = fixed, random = random, names = names(fit), estimate = unname(at), low = low, high = high)
}
cases <- list(
  one("A3", "A3", "arm + x", "(1 + armn | pair)"),
  one("A1", "A1", "arm", "(1 + armn | pair)"),
  one("D1", "D1", "arm + x", "(1 | pair) + (1 | site) + (1 | person)"))
write(toJSON(list(about = "made by structured_profiles.R", R = R.version.string, lme4 = as.character(packageVersion("lme4")), cases = cases),
             auto_unbox = TRUE, digits = NA), "structured_profiles.json")

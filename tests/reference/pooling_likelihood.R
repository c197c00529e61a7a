# Pooled likelihood-ratio tests D2 (likelihood), D3 and D4 by mitml, with the completed-data statistics they are made from.
# Rscript pooling_likelihood.R > pooling_likelihood.json
suppressMessages({library(mitml); library(lme4); library(jsonlite)})
ns <- asNamespace("mitml")
make <- function(seed, n, m, gap) {
  set.seed(seed)
  g <- rep(seq_len(n / 5), each = 5)
  x <- rnorm(n); z <- rnorm(n); w <- rnorm(n)
  y <- 0.4 * x + 0.15 * z + rnorm(n / 5)[g] * 0.4 + rnorm(n)
  lost <- runif(n) < gap
  sets <- lapply(seq_len(m), function(k) {
    yy <- y; yy[lost] <- 0.4 * x[lost] + rnorm(sum(lost), 0, 1.1) + rnorm(1, 0, .1)
    data.frame(y = yy, x, z, w, g = factor(g))
  })
  as.mitml.list(sets)
}
case <- function(name, sets, full, null) {
  m <- length(sets)
  out <- list(name = name, m = m)
  d2 <- testModels(full, null, method = "D2", use = "likelihood")$test
  d3 <- testModels(full, null, method = "D3")$test
  d4 <- testModels(full, null, method = "D4", data = sets)$test
  ml <- function(f) if (inherits(f, "lmerMod")) refitML(f) else f
  ll <- function(f) sapply(f, function(v) as.numeric(logLik(ml(v))))
  out$statistics <- 2 * (ll(full) - ll(null))
  a <- get(".evaluateUserLogLik", ns)(lapply(full, ml)); b <- get(".evaluateUserLogLik", ns)(lapply(null, ml))
  out$k <- as.numeric(a$df - b$df)
  out$d3_mean <- mean(2 * (as.numeric(a$LL) - as.numeric(b$LL))); out$d3_pooled <- mean(2 * (as.numeric(a$LL.pooled) - as.numeric(b$LL.pooled)))
  a <- get(".evaluateStackedLogLik", ns)(lapply(full, ml), datalist = sets); b <- get(".evaluateStackedLogLik", ns)(lapply(null, ml), datalist = sets)
  out$d4_mean <- mean(2 * (as.numeric(a$LL) - as.numeric(b$LL))); out$d4_stacked <- 2 * (as.numeric(a$LL.stacked) - as.numeric(b$LL.stacked))
  row <- function(t) { t <- as.numeric(t); list(F = t[1], df1 = t[2], df2 = t[3], p = t[4], riv = t[5]) }
  out$D2 <- row(d2); out$D3 <- row(d3); out$D4 <- row(d4)
  out
}
cases <- list()
for (s in 1:3) {
  sets <- make(s, c(60, 120, 100)[s], c(5, 20, 3)[s], c(.3, .4, .2)[s])
  cases[[length(cases) + 1]] <- case(paste0("lm", s), sets, with(sets, lm(y ~ x + z + w)), with(sets, lm(y ~ x)))
  cases[[length(cases) + 1]] <- case(paste0("lmer", s), sets, with(sets, lmer(y ~ x + z + w + (1 | g), REML = FALSE)), with(sets, lmer(y ~ x + (1 | g), REML = FALSE)))
}
v <- function(p) as.character(packageVersion(p))
cat(toJSON(list(source = paste0("R ", getRversion(), ", mitml ", v("mitml"), ", lme4 ", v("lme4")), cases = cases), auto_unbox = TRUE, digits = NA, pretty = TRUE))

# Ordinal, binary and count outcomes in clusters on data sets that R packages ship:
#   wine (ordinal::wine: bitterness in five categories, 9 judges), cbpp (lme4: cases of pleuropneumonia by herd, as 0/1 animals),
#   respiratory (geepack: good or poor status of patients in two centres, four visits), grouseticks (lme4: ticks on chicks by brood).
# clmm with adaptive quadrature; glmer; estimating equations of cumulative indicators under independence and of 0/1 outcomes, with LZ, KC and
# MD sandwiches written out here from their formulas. Rscript outcome_models.R outcome_models.json
suppressMessages({library(ordinal); library(lme4); library(geepack); library(jsonlite); library(MASS)})
num <- function(x) as.list(x)
out <- list(software = list(R = R.version.string, ordinal = as.character(packageVersion("ordinal")), lme4 = as.character(packageVersion("lme4")),
                            geepack = as.character(packageVersion("geepack"))))

# --- sandwiches from whitened pieces
root <- function(A, power) { e <- eigen((A + t(A)) / 2); e$vectors %*% diag(pmax(e$values, 1e-12)^power, nrow(A)) %*% t(e$vectors) }
sandwiches <- function(parts) {
  M <- solve(Reduce(`+`, lapply(parts, function(p) t(p$d) %*% p$d)))
  meat <- function(power) Reduce(`+`, lapply(parts, function(p) {
    I <- diag(nrow(p$d)); s <- t(p$d) %*% (if (power == 0) p$r else root(I - p$d %*% M %*% t(p$d), power) %*% p$r); s %*% t(s) }))
  list(LZ = M %*% meat(0) %*% M, KC = M %*% meat(-1/2) %*% M, MD = M %*% meat(-1) %*% M)
}
cumulative <- function(y, X, cluster) {  # y 1..C
  C <- max(y); q <- C - 1; p <- ncol(X)
  fit <- polr(factor(y) ~ X, method = "logistic", control = list(reltol = 1e-16, maxit = 2000))
  theta <- c(fit$zeta, coef(fit))
  pieces <- function(theta) lapply(split(seq_along(y), cluster), function(rows) {
    ds <- lapply(rows, function(i) {
      F <- plogis(theta[1:q] - sum(X[i, ] * theta[-(1:q)])); s <- F * (1 - F)
      D <- cbind(diag(s, q), -s %*% t(X[i, ])); V <- outer(1:q, 1:q, function(a, b) F[pmin(a, b)] * (1 - F[pmax(a, b)]))
      L <- t(chol(V)); list(d = solve(L, D), r = solve(L, as.numeric(y[i] <= 1:q) - F)) })
    list(d = do.call(rbind, lapply(ds, `[[`, "d")), r = unlist(lapply(ds, `[[`, "r"))) })
  for (k in 1:30) { P <- pieces(theta)  # Fisher scoring from where polr stops
    theta <- theta + solve(Reduce(`+`, lapply(P, function(p) t(p$d) %*% p$d)), Reduce(`+`, lapply(P, function(p) t(p$d) %*% p$r))) }
  list(theta = as.numeric(theta), vcov = lapply(sandwiches(pieces(theta)), function(V) unname(V)))
}

# --- wine
w <- wine; w$warm <- as.numeric(w$temp == "warm"); w$yes <- as.numeric(w$contact == "yes"); w$y <- as.integer(w$rating)
m <- clmm(rating ~ warm + yes + (1 | judge), data = w, nAGQ = 15, control = clmm.control(gradTol = 1e-9, maxIter = 500))
m1 <- clmm(rating ~ warm + yes + (1 | judge), data = w, nAGQ = 1, control = clmm.control(gradTol = 1e-9, maxIter = 500))
tidy <- function(m) list(coef = num(coef(m)), se = num(sqrt(diag(vcov(m)))[names(coef(m))]), sd = as.numeric(m$ST[[1]]), logLik = as.numeric(logLik(m)))
out$wine <- list(data = list(judge = as.character(w$judge), warm = w$warm, yes = w$yes, rating = w$y), agq15 = tidy(m), laplace = tidy(m1),
                 marginal = cumulative(w$y, as.matrix(w[, c("warm", "yes")]), w$judge))

# --- cbpp as animals
b <- cbpp[rep(seq_len(nrow(cbpp)), cbpp$size), ]
b$sick <- unlist(lapply(seq_len(nrow(cbpp)), function(i) rep(c(1, 0), c(cbpp$incidence[i], cbpp$size[i] - cbpp$incidence[i]))))
g <- glmer(sick ~ period + (1 | herd), data = b, family = binomial, nAGQ = 15, control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-12, optCtrl = list(rhoend = 1e-10, maxfun = 1e5)))
e <- geeglm(sick ~ period, id = herd, data = b[order(b$herd), ], family = binomial, corstr = "exchangeable", control = geese.control(epsilon = 1e-14, maxit = 200))
binary <- function(y, X, cluster, beta, alpha, phi) {
  P <- lapply(split(seq_along(y), cluster), function(rows) {
    mu <- plogis(drop(X[rows, , drop = FALSE] %*% beta)); s <- sqrt(mu * (1 - mu)); R <- matrix(alpha, length(rows), length(rows)); diag(R) <- 1
    L <- t(chol(phi * R)); list(d = solve(L, s * X[rows, , drop = FALSE]), r = solve(L, (y[rows] - mu) / s)) })
  lapply(sandwiches(P), unname)
}
X <- model.matrix(~ period, b)
out$cbpp <- list(data = list(herd = as.character(b$herd), period = as.character(b$period), sick = b$sick),
  agq15 = list(coef = num(fixef(g)), se = num(sqrt(diag(as.matrix(vcov(g))))), sd = as.numeric(getME(g, "theta")), logLik = as.numeric(logLik(g))),
  gee = list(coef = num(coef(e)), alpha = as.numeric(e$geese$alpha), phi = as.numeric(e$geese$gamma), naive = unname(e$geese$vbeta),
             vcov = binary(b$sick, X, as.integer(b$herd), coef(e), as.numeric(e$geese$alpha), as.numeric(e$geese$gamma))))

# --- grouseticks: Poisson with a random brood
t <- grouseticks; t$height <- (t$HEIGHT - 460) / 30; t$year96 <- as.numeric(t$YEAR == 96); t$year97 <- as.numeric(t$YEAR == 97)
pm <- glmer(TICKS ~ year96 + year97 + height + (1 | BROOD), data = t, family = poisson, nAGQ = 15, control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-12, optCtrl = list(rhoend = 1e-10, maxfun = 1e5)))
out$grouseticks <- list(data = list(brood = as.character(t$BROOD), year96 = t$year96, year97 = t$year97, height = t$height, ticks = t$TICKS),
  agq15 = list(coef = num(fixef(pm)), se = num(sqrt(diag(as.matrix(vcov(pm))))), sd = as.numeric(getME(pm, "theta")), logLik = as.numeric(logLik(pm))))
writeLines(toJSON(out, digits = 17, auto_unbox = TRUE), commandArgs(TRUE)[1])

# Dunnett's critical values and the power of several comparisons with one control (mvtnorm: multivariate t by Genz and Bretz's
# quasi-Monte Carlo, errors of about 1e-5), and the power of two one-sided tests (integrate over the chi of the standard error).
# Run: Rscript power_margins.R > power_margins.json
library(mvtnorm)
library(jsonlite)
set.seed(20260901)
exact <- GenzBretz(maxpts = 2e5, abseps = 2e-5, releps = 0)

dunnett <- function(loading, df, alpha, sides, shift) {
  R <- outer(loading, loading); diag(R) <- 1
  k <- length(loading)
  none <- function(c, d) {
    low <- if (sides == 2) rep(-c, k) else rep(-Inf, k)
    # the noncentral multivariate t of Kshirsagar: (Z + shift) / S
    pmvt(lower = low, upper = rep(c, k), delta = d, df = df, corr = R, type = "Kshirsagar", algorithm = exact)[1]
  }
  crit <- uniroot(function(c) none(c, rep(0, k)) - (1 - alpha), c(0.5, 12), tol = 1e-6)$root
  every <- 0
  signs <- if (sides == 2) as.matrix(expand.grid(rep(list(c(1, -1)), k))) else matrix(1, 1, k)
  for (i in seq_len(nrow(signs))) {
    s <- signs[i, ]
    every <- every + pmvt(lower = rep(crit, k), upper = rep(Inf, k), delta = s * shift, df = df, corr = R * outer(s, s),
                          type = "Kshirsagar", algorithm = exact)[1]
  }
  list(loading = loading, df = df, alpha = alpha, sides = sides, shift = shift, critical = crit,
       any = 1 - none(crit, shift), all = every)
}

tost <- function(lower, upper, df, alpha) {
  t <- qt(1 - alpha, df)
  f <- function(s) {
    density <- exp(log(2) + df / 2 * log(df / 2) - lgamma(df / 2) + (df - 1) * log(s) - df / 2 * s^2)
    density * (pnorm(upper - t * s) - pnorm(t * s - lower))
  }
  end <- (lower + upper) / (2 * t)
  cuts <- c(0, end * (1:20) / 20)
  value <- sum(sapply(1:20, function(i) integrate(f, cuts[i], cuts[i + 1], rel.tol = 1e-10, abs.tol = 1e-14)$value))
  list(lower = lower, upper = upper, df = df, alpha = alpha, power = value)
}

h <- sqrt(0.5)
out <- list(
  made_with = list(R = R.version.string, mvtnorm = as.character(packageVersion("mvtnorm"))),
  dunnett = list(
    dunnett(c(h, h), 20, 0.05, 2, c(2, 2.5)),
    dunnett(c(h, h, h), 8, 0.05, 1, c(0, 1.5, 3)),
    dunnett(c(0.6, 0.7, 0.8), 5, 0.05, 2, c(1, 2, 3)),
    dunnett(rep(sqrt(1 / 3), 4), 60, 0.01, 2, c(3, 3, 3, 3)),
    dunnett(c(h, h, h, h, h), 30, 0.025, 1, c(0, 0, 0, 0, 2.8))
  ),
  tost = list(
    tost(3, 3, 20, 0.05), tost(3, 1, 6, 0.025), tost(4, 3.5, 66, 0.025), tost(2, 2, 10, 0.05), tost(30, 40, 1, 0.05),
    tost(3.1, 3.1, 2000, 0.05)
  )
)
cat(toJSON(out, auto_unbox = TRUE, digits = 12, pretty = TRUE), "\n")

# Recomputes, in base R, the cases of power_cases.json that need no other package, and prints the largest difference.
# The other values were printed by the packages and publications named in each case's "source".
library(jsonlite)
cases <- fromJSON("power_cases.json", simplifyVector = FALSE)
names(cases) <- vapply(cases, function(x) x$id, "")

power_f <- function(J, m, icc, delta, alpha = 0.05) {
  lambda <- 0.25 * J * delta^2 / (icc + (1 - icc) / m)
  pf(qf(1 - alpha, 1, J - 2), 1, J - 2, lambda, lower.tail = FALSE)
}
gap <- function(id, name, value) abs(cases[[id]]$expected[[name]] - value)

differences <- c(
  seed = gap("seed_power_F", "power", power_f(68, 2, 0.05, 0.5)),
  icc_0 = gap("seed_sens_icc0", "power", power_f(68, 2, 0, 0.5)),
  icc_1 = gap("seed_sens_icc0.1", "power", power_f(68, 2, 0.1, 0.5)),
  lost = gap("attrition_cluster", "power", power_f(60, 2, 0.05, 0.5)),
  small = gap("smallJ_8", "noncentral_F", power_f(8, 30, 0.05, 0.6)),
  most = gap("feas_J8", "max_power", power_f(8, Inf, 0.1, 0.5)),
  assurance = gap("assurance_seed", "expected_power",
    integrate(function(r) sapply(r, function(x) power_f(68, 2, x, 0.5)) * dbeta(r, 2, 38), 0, 1, rel.tol = 1e-12)$value)
)
print(differences)
cat("largest:", max(differences), " R", as.character(getRversion()), "\n")

# R's model.matrix with treatment contrasts (levels in the C locale) for formulas that exercise its coding rules.
# Writes model_matrix.json beside this file:  Rscript tests/reference/model_matrix.R
invisible(Sys.setlocale("LC_COLLATE", "C"))
data <- data.frame(
  y = c(1.5, 2.25, 3, 0.5, 4, 2, 1, 3.5, 2.5, 5, 0.25, 1.75),
  arm = rep(c("control", "intervention"), 6),
  age = c("30-44", "18-29", "60+", "18-29", "30-44", "60+", "30-44", "18-29", "60+", "18-29", "30-44", "60+"),
  x = c(0.1, -1.2, 0.7, 2, 1.1, -0.4, 0.3, 0.9, -2, 1.4, -0.6, 0.2),
  visit = c(1, 2, 10, 1, 2, 10, 10, 1, 2, 10, 2, 1),
  Mixed = c("b", "A", "b", "a", "A", "a", "b", "a", "A", "b", "A", "a"),
  stringsAsFactors = FALSE
)
data$remote <- c(TRUE, FALSE, FALSE, TRUE, TRUE, FALSE, TRUE, FALSE, TRUE, TRUE, FALSE, FALSE)
formulas <- c(
  "y ~ arm", "y ~ 0 + arm", "y ~ arm - 1", "y ~ x + arm + age", "y ~ arm * age", "y ~ 0 + arm * age", "y ~ arm:age", "y ~ age + arm:age",
  "y ~ x:arm", "y ~ arm + x:arm", "y ~ x + x:arm", "y ~ remote + arm", "y ~ 0 + remote", "y ~ factor(visit)", "y ~ factor(visit) * arm",
  "y ~ visit + arm", "y ~ Mixed", "y ~ (arm + age + remote)^2", "y ~ arm * age * x - arm:age:x", "y ~ 0 + x + arm + age", "y ~ age:arm + arm",
  "y ~ x * remote", "y ~ 1", "y ~ arm + age:x", "y ~ 0 + age:arm", "y ~ arm:remote + age", "y ~ (arm + age):x"
)
cases <- lapply(formulas, function(f) {
  m <- model.matrix(as.formula(f), data)
  list(formula = f, columns = colnames(m), assign = attr(m, "assign"), terms = attr(terms(as.formula(f)), "term.labels"), matrix = unname(m))
})
out <- list(source = "R model.matrix, contr.treatment, LC_COLLATE=C", R = R.version.string, data = as.list(data), cases = cases)
path <- sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE))
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = NA), sub("\\.R$", ".json", path))

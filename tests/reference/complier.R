# Two-stage least squares with the CR2 sandwich and Satterthwaite df: AER::ivreg and clubSandwich.
# Writes complier.json beside this file:  Rscript tests/reference/complier.R
suppressMessages({library(AER); library(clubSandwich)})
path <- sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE))
folder <- file.path(dirname(path), "models", "data")
one <- function(name) {
  d <- read.csv(file.path(folder, paste0(name, ".csv")))
  d$received <- ifelse(d$arm == 1 & d$y0 + 0.5 * d$consumer > -0.6, 1, 0)
  d$dose <- ifelse(d$arm == 1, pmin(pmax(round(2 + d$y0), 0), 4), 0)
  lapply(list(plain = y ~ received | arm, adjusted = y ~ received + y0 + gender + age | arm + y0 + gender + age,
              dose = y ~ dose + y0 | arm + y0), function(f) {
    m <- ivreg(f, data = d)
    t <- coef_test(m, vcov = "CR2", cluster = d$site, test = "Satterthwaite")
    list(formula = deparse1(f), names = names(coef(m)), beta = unname(coef(m)), se = t$SE, df = t$df, p = t$p_Satt)
  })
}
# 2SLS of site means: outcome and receipt, plain or with covariates taken out of people first; sites equal or by their people
sites <- function(name) {
  d <- read.csv(file.path(folder, paste0(name, ".csv")))
  d$received <- ifelse(d$arm == 1 & d$y0 + 0.5 * d$consumer > -0.6, 1, 0)
  d$y_left <- resid(lm(y ~ y0, d)); d$received_left <- resid(lm(received ~ y0, d))
  a <- aggregate(cbind(y, received, y_left, received_left, arm) ~ site, d, mean)
  n <- as.numeric(table(d$site)[as.character(a$site)])
  row <- function(m) { s <- summary(m)$coefficients[2, ]; list(estimate = s[[1]], se = s[[2]], p = s[[4]], df = m$df.residual) }
  list(equal = row(ivreg(y ~ received | arm, data = a)), size = row(ivreg(y ~ received | arm, data = a, weights = n)),
       adjusted = row(ivreg(y_left ~ received_left | arm, data = a)))
}
out <- list(R = R.version.string, AER = as.character(packageVersion("AER")), clubSandwich = as.character(packageVersion("clubSandwich")),
            received = "arm == 1 and y0 + 0.5 consumer > -0.6", dose = "in arm 1: round(2 + y0) cut to 0..4; else 0",
            cases = lapply(setNames(nm = c("crt_main", "crt_8clusters", "crt_pairs24")), one),
            site_means = lapply(setNames(nm = c("crt_main", "crt_8clusters", "crt_pairs24")), sites))
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = NA), sub("\\.R$", ".json", path))

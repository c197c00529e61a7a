# Least squares with people and with sites counting once, CR2 over sites and Satterthwaite df: clubSandwich, for two working covariances.
# Writes estimands.json beside this file:  Rscript tests/reference/estimands.R
suppressMessages(library(clubSandwich))
path <- sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE))
folder <- file.path(dirname(path), "models", "data")
one <- function(name) {
  d <- read.csv(file.path(folder, paste0(name, ".csv")))
  d <- d[order(d$site), ]
  d$size <- as.vector(table(d$site)[d$site])
  d$inverse <- 1 / d$size
  lapply(list(plain = y ~ arm, adjusted = y ~ arm + y0 + gender + age), function(f) {
    people <- lm(f, data = d)
    sites <- lm(f, data = d, weights = inverse)
    e <- residuals(people)
    same <- outer(d$site, d$site, "==")
    pairs <- sum(choose(table(d$site), 2))
    alpha <- max(0, sum(tapply(e, d$site, sum)^2 - tapply(e^2, d$site, sum)) / 2 / pairs / mean(e^2))
    at <- function(rho) {
      target <- (1 - rho) * diag(nrow(d)) + rho * same
      rows <- lapply(list(people, sites), function(m) {
        V <- vcovCR(m, cluster = d$site, type = "CR2", target = lapply(split(seq_len(nrow(d)), d$site), function(i) target[i, i, drop = FALSE]))
        coef_test(m, vcov = V, test = "Satterthwaite")["arm", ]
      })
      list(rho = rho, estimate = c(coef(people)[["arm"]], coef(sites)[["arm"]]), se = sapply(rows, function(r) r$SE), df = sapply(rows, function(r) r$df))
    }
    list(independence = at(0), exchangeable = at(alpha))
  })
}
out <- list(R = R.version.string, clubSandwich = as.character(packageVersion("clubSandwich")),
            cases = lapply(setNames(nm = c("crt_main", "crt_8clusters", "crt_unbalanced", "crt_pairs24")), one))
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = NA), sub("\\.R$", ".json", path))

# Nested mixed models over completed sets, compared by mitml: testModels (D1, D2, D3, D4) and anova of mitml results.
# The sets are simulated here, rounded and stored.      Rscript pooled_comparison.R      (from this folder)
suppressMessages({library(mitml); library(lme4); library(jsonlite)})
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))
make <- function(seed, pairs, size, m) {
  set.seed(seed)
  J <- 2 * pairs; site <- rep(seq_len(J), pmax(1, rpois(J, size))); n <- length(site); pair <- (site + 1) %/% 2
  x <- round(rnorm(n), 3); z <- round(rnorm(n), 3); f <- sample(c("a", "b", "c"), n, TRUE)
  y <- round(.3 * (site %% 2) + .4 * x + .15 * z + .25 * (f == "c") + .5 * rnorm(pairs)[pair] + .4 * rnorm(J)[site] + rnorm(n), 3)
  lost <- runif(n) < .25; lost_x <- runif(n) < .2
  list(fixed = data.frame(site = paste0("S", site), pair = paste0("P", pair), arm = ifelse(site %% 2 == 1, "intervention", "control"), f = f, z = z),
       y = lapply(seq_len(m), function(k) { v <- y; v[lost] <- round(.4 * x[lost] + rnorm(1, 0, .15) + rnorm(sum(lost), 0, 1.2), 3); v }),
       x = lapply(seq_len(m), function(k) { v <- x; v[lost_x] <- round(.3 * y[lost_x] + rnorm(1, 0, .1) + rnorm(sum(lost_x), 0, .9), 3); v }))
}
row <- function(t) { t <- as.numeric(t); list(statistic = t[1], df1 = t[2], df2 = t[3], p_value = t[4], riv = t[5]) }
case <- function(id, data, larger, smaller, random) {
  sets <- as.mitml.list(lapply(seq_along(data$y), function(k) cbind(data$fixed, y = data$y[[k]], x = data$x[[k]])))
  fits <- function(f, reml) lapply(sets, function(d) eval(bquote(lmer(.(as.formula(f)), data = d, REML = .(reml), control = tight))))
  text <- function(f) paste(f, "+", random)
  big <- fits(text(larger), FALSE); small <- fits(text(smaller), FALSE); big_r <- fits(text(larger), TRUE); small_r <- fits(text(smaller), TRUE)
  class(big) <- class(small) <- c("mitml.result", "list")
  any <- function(...) row(testModels(...)$test)
  out <- list(id = id, larger = larger, smaller = smaller, random = random, sets = data$name, D1 = any(big_r, small_r, method = "D1"),
       D1_df = any(big_r, small_r, method = "D1", df.com = 20), D2_wald = any(big_r, small_r, method = "D2", use = "wald"),
       D2 = any(big, small, method = "D2", use = "likelihood"), D3 = any(big, small, method = "D3"), D4 = any(big, small, method = "D4", data = sets),
       anova_D3 = row(anova(big, small, method = "D3")$test[[1]]$test), anova_D4 = row(anova(big, small, method = "D4", data = sets)$test[[1]]$test))
  cat(id, out$D1$p_value, out$D2$p_value, out$D3$p_value, out$D4$p_value, "\n"); out
}
data <- list(A = make(1, 12, 5, 5), B = make(2, 20, 3, 8), C = make(3, 15, 6, 3))
for (k in names(data)) data[[k]]$name <- k
cases <- list(
  case("one coefficient", data$A, "y ~ arm + x + z", "y ~ arm + x", "(1 | site)"),
  case("a factor and a slope", data$A, "y ~ arm + x + z + f", "y ~ arm + x", "(1 | site)"),
  case("interaction", data$B, "y ~ arm * x + z", "y ~ arm + x + z", "(1 | site)"),
  case("pairs and sites", data$B, "y ~ arm + x + z + f", "y ~ arm", "(1 | pair) + (1 | site)"),
  case("three sets", data$C, "y ~ arm + f", "y ~ arm", "(1 | site)"),
  case("three sets in pairs", data$C, "y ~ arm + x + f", "y ~ arm + f", "(1 | pair) + (1 | site)"))
v <- function(p) as.character(packageVersion(p))
strip <- function(d) list(fixed = as.list(d$fixed), y = d$y, x = d$x)
writeLines(toJSON(list(source = paste0("R ", getRversion(), ", mitml ", v("mitml"), ", lme4 ", v("lme4")), data = lapply(data, strip), cases = cases),
  auto_unbox = TRUE, digits = NA), "pooled_comparison.json")

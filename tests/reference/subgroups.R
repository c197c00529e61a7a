# Effects by subgroup and the Kenward-Roger F of the interaction: lme4, pbkrtest, emmeans.
# Writes subgroups.json beside this file:  Rscript tests/reference/subgroups.R
suppressMessages({library(lme4); library(pbkrtest); library(emmeans)})
emm_options(pbkrtest.limit = 1e5)
path <- sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE))
folder <- file.path(dirname(path), "models", "data")
tight <- lmerControl(optimizer = "nloptwrap", optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-15, maxeval = 1e5))
one <- function(name) {
  d <- read.csv(file.path(folder, paste0(name, ".csv")))
  d$arm <- factor(d$arm)
  m <- lmer(y ~ y0 + gender + arm * age + (1 | site), data = d, control = tight)
  small <- lmer(y ~ y0 + gender + arm + age + (1 | site), data = d, control = tight)
  s <- KRmodcomp(m, small)$test["Ftest", ]
  e <- summary(contrast(emmeans(m, ~ arm | age, lmer.df = "kenward-roger"), "revpairwise"))
  c0 <- lmer(y ~ gender + age + arm * y0 + (1 | site), data = d, control = tight)
  k <- fixef(c0)[["arm1:y0"]]
  L <- as.numeric(names(fixef(c0)) == "arm1:y0")
  V <- vcovAdj(c0)
  list(levels = as.character(e$age), estimate = e$estimate, se = e$SE, df = e$df, F = s$stat, ndf = s$ndf, ddf = s$ddf, p = s$p.value,
       slope = k, slope_se = sqrt(as.numeric(L %*% as.matrix(V) %*% L)), slope_df = Lb_ddf(L, vcov(c0), V))
}
out <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")), pbkrtest = as.character(packageVersion("pbkrtest")),
            emmeans = as.character(packageVersion("emmeans")), cases = lapply(setNames(nm = c("crt_main", "crt_unbalanced", "crt_pairs24")), one))
writeLines(jsonlite::toJSON(out, auto_unbox = TRUE, digits = NA), sub("\\.R$", ".json", path))

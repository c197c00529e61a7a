# Makes real_sets.json: real trials and multilevel data that R's packages ship, as lme4, lmerTest, pbkrtest, nlme, clubSandwich and emmeans see them.
#   Rscript real_sets.R          (from this folder)
# Sources: AchievementAwardsRCT (clubSandwich; Angrist and Lavy 2009, Am. Econ. Rev. 99:1384; schools randomised within pairs, one of them a trio), here
# the cohort of 2001 as counts; Oats (nlme; Yates 1935, varieties on whole plots within blocks); Pastes (lme4; Davies 1947, casks in batches);
# Orthodont (nlme; Potthoff and Roy 1964, children measured four times); sleepstudy (lme4; Belenky 2003). The packages are under the GPL.
source("lmer_at_optimum.R")
suppressMessages({library(clubSandwich); library(emmeans)})

data(AchievementAwardsRCT, package = "clubSandwich")
a <- subset(AchievementAwardsRCT, year == "2001")
counts <- aggregate(cbind(n = 1, passed = Bagrut_status) ~ pair + school_id + treated + sex, a, sum)
counts <- counts[order(counts$pair, counts$school_id, counts$sex), ]
rows <- counts[rep(seq_len(nrow(counts)), counts$n), ]
place <- ave(seq_len(nrow(rows)), rows$school_id, rows$sex, FUN = seq_along)
awards <- data.frame(y = as.numeric(place <= rows$passed), treated = rows$treated, sex = rows$sex, pair = factor(rows$pair), school = factor(rows$school_id))
oats <- data.frame(y = nlme::Oats$yield, block = as.character(nlme::Oats$Block), variety = as.character(nlme::Oats$Variety), nitro = nlme::Oats$nitro)
pastes <- data.frame(y = Pastes$strength, batch = as.character(Pastes$batch), sample = as.character(Pastes$sample))
ortho <- with(as.data.frame(nlme::Orthodont), data.frame(y = distance, age = age, subject = as.character(Subject), sex = as.character(Sex)))
sleep <- data.frame(y = sleepstudy$Reaction, days = sleepstudy$Days, subject = as.character(sleepstudy$Subject))

cases <- list(
  c(lmer_case("oats", oats, "variety + nitro", "(1 | block/variety)"), data = "oats"),
  c(lmer_case("oats by block", oats, "variety * nitro", "(1 | block)"), data = "oats"),
  c(lmer_case("pastes", pastes, "1", "(1 | batch/sample)"), data = "pastes"),
  c(lmer_case("orthodont", ortho, "sex * age", "(1 | subject)"), data = "orthodont"),
  c(lmer_case("orthodont slopes", ortho, "sex * age", "(1 + age | subject)"), data = "orthodont"),
  c(lmer_case("sleep slopes", sleep, "days", "(1 + days | subject)"), data = "sleep"),
  c(lmer_case("sleep apart", sleep, "days", "(1 | subject) + (0 + days | subject)"), data = "sleep"),
  c(lmer_case("awards", awards, "treated + sex", "(1 | school)"), data = "awards"),
  c(lmer_case("awards pairs", awards, "treated + sex", "(1 | pair/school)"), data = "awards"),
  c(lmer_case("awards pairs fixed", awards, "treated + sex + pair", "(1 | school)"), data = "awards"))

m <- lmer(y ~ treated + sex + (1 | school), awards)
cr2 <- coef_test(m, vcov = "CR2", cluster = awards$school)
robust <- list(formula = "y ~ treated + sex + (1 | school)", data = "awards", std_error = strip(cr2$SE), df = strip(cr2$df_Satt))
e <- as.data.frame(emmeans(lmer(y ~ variety * nitro + (1 | block), oats), "variety", lmer.df = "kenward-roger"))
means <- list(formula = "y ~ variety * nitro + (1 | block)", data = "oats", level = I(as.character(e$variety)), estimate = e$emmean, std_error = e$SE, df = e$df)

suppressMessages(library(nlme))
v <- lme(y ~ sex * age, ortho, random = ~1 | subject, weights = varIdent(form = ~1 | sex), method = "REML",
         control = lmeControl(tolerance = 1e-10, msTol = 1e-13, msMaxIter = 500, returnObject = TRUE))
s <- v$sigma * coef(v$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)
hetero <- list(estimate = strip(fixef(v)), std_error = strip(sqrt(diag(v$varFix))), residual_sd = as.list(s), log_likelihood = as.numeric(logLik(v)))
versions <- sapply(c("lme4", "lmerTest", "pbkrtest", "nlme", "clubSandwich", "emmeans", "numDeriv"), function(p) as.character(packageVersion(p)))
write(toJSON(list(about = "made by real_sets.R", R = R.version.string, packages = as.list(versions),
                  data = list(awards = as.list(counts), oats = as.list(oats), pastes = as.list(pastes), orthodont = as.list(ortho), sleep = as.list(sleep)),
                  lmer = cases, robust = robust, means = means, orthodont_by_sex = hetero), auto_unbox = TRUE, digits = NA), "real_sets.json")

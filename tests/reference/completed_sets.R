# completed_sets.parquet (written by Imputations.save) read by R, made a mids object and pooled by mice (and flux of the table before imputation); and the same sets through write_stata.
#   RETICULATE_PYTHON=.venv/bin/python Rscript completed_sets.R completed_sets.parquet sets.dta > completed_sets.json
# With the arrow package the first line is d <- arrow::read_parquet(path); here pyarrow reads the file for R.
suppressMessages({library(mice); library(jsonlite); library(haven)})
path <- commandArgs(trailingOnly = TRUE)
pooled <- function(d) {
  imp <- as.mids(d, .imp = "imputation", .id = "row")
  fit <- with(imp, lm(mood ~ arm + mood_0 + band))
  s <- summary(pool(fit))
  list(m = imp$m, missing = as.list(imp$nmis[c("mood", "mood_0", "band")]), term = as.character(s$term), estimate = s$estimate, std_error = s$std.error, df = s$df, p_value = s$p.value)
}
tidy <- function(d) { d$band <- factor(d$band, levels = c("low", "middle", "high")); d$arm <- factor(d$arm, levels = c("control", "intervention")); d }
columns <- reticulate::import("pyarrow.parquet")$read_table(path[1])$to_pydict()
d <- tidy(as.data.frame(lapply(columns, function(x) unlist(lapply(x, function(v) if (is.null(v)) NA else v)))))
s <- as.data.frame(read_dta(path[2]))
names(s)[1:2] <- c("imputation", "row"); s[["_mi_miss"]] <- NULL
s$band <- as_factor(s$band); for (n in c("person", "site", "arm")) s[[n]] <- as.character(s[[n]])
s <- tidy(s)
v <- function(p) as.character(packageVersion(p))
cat(toJSON(list(source = paste0("R ", getRversion(), ", mice ", v("mice"), ", haven ", v("haven")), parquet = pooled(d), stata = pooled(s), flux = flux(d[d$imputation == 0, c("mood", "mood_0", "band")])), auto_unbox = TRUE, digits = NA, pretty = TRUE))

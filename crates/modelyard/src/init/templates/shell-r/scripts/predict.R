# Draws each forecast from the past: Rscript predict.R MODEL FUTURE_CSV CONFIG_YML OUTPUT_CSV.

# A top-level number in config.yml; a YAML package reads more than that.
option <- function(config_file, name, default) {
  lines <- readLines(config_file, warn = FALSE)
  found <- grep(paste0("^", name, ":"), lines, value = TRUE)
  if (length(found) == 0) default else as.integer(sub("^[^:]*:", "", found[1]))
}

arguments <- commandArgs(trailingOnly = TRUE)
seen <- readRDS(arguments[1])
future <- read.csv(arguments[2], check.names = FALSE, stringsAsFactors = FALSE)
samples <- option(arguments[3], "n_samples", 100L)
set.seed(1)

forecast <- function(location) {
  past <- seen[[as.character(location)]]
  if (is.null(past)) past <- unlist(seen, use.names = FALSE)
  past[sample.int(length(past), samples, replace = TRUE)]
}
drawn <- do.call(rbind, lapply(future$location, forecast))
colnames(drawn) <- paste0("sample_", seq_len(samples) - 1)

output <- data.frame(time_period = future$time_period, location = future$location, drawn)
write.csv(output, arguments[4], row.names = FALSE, quote = TRUE)
cat("predicted", nrow(output), "rows\n")

# Learns what each location has seen: Rscript train.R DATA_CSV MODEL.

arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(arguments[1], check.names = FALSE, stringsAsFactors = FALSE)
data <- data[!is.na(data$disease_cases), ]
if (nrow(data) == 0) {
  stop("the training data has no row with disease_cases")
}

seen <- split(data$disease_cases, as.character(data$location))
saveRDS(seen, arguments[2])
cat("trained on", nrow(data), "rows of", length(seen), "locations\n")

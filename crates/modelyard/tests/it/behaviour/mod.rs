//! How the service behaves when it is pressed, misused, interrupted or short of something.

mod any_body;
mod backing_up;
mod bad_input;
mod bad_paths;
mod bounds;
mod cancelling;
mod closed;
mod commands;
mod computing;
mod concurrency;
mod content;
mod foreign;
mod frames;
mod front;
mod full_disk;
mod large_body;
mod lingering;
mod outage;
mod restarting;
mod samples;
mod scheduled;
mod secrets;
mod several;
mod starting;
mod stopping;
mod streams;

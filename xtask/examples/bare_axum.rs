//! What `GET /health` costs when nothing is around it: axum as it comes, and one route. The floor
//! that `cargo xtask bench serve` compares the service with.
//!
//! Usage: `bare_axum PORT`.

use std::{env, error::Error, net::Ipv4Addr};

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::args().nth(1).ok_or("usage: bare_axum PORT")?.parse()?;
    let router = Router::new().route("/health", get(health));
    axum::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?, router).await?;
    Ok(())
}

async fn health() -> Json<Value> {
    Json(json!({"status": "healthy", "checks": {"database": {"state": "healthy"}}}))
}

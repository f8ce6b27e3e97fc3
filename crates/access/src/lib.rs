//! Who may come in, and what they may do.
//!
//! What is here belongs to the deployment and not to one of its services; see
//! [`modelyard_kernel::DEPLOYMENT`].

pub mod factor;
pub mod gate;
mod hidden;
pub mod identity;
pub mod key;
pub mod link;
mod lockout;
pub mod mail;
pub mod notice;
pub mod password;
pub mod role;
pub mod secret;
pub mod session;
pub mod token;
pub mod user;

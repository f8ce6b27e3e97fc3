//! The data layer and the blobs, on both databases.

mod values;

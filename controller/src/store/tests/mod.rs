//! The store without an API server: tables under lag, the availability index, routes.

mod availability;
mod roll;
mod routes;
mod table;

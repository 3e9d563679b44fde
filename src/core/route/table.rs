//! The route table: finds the most specific route.

use super::Route;

/// Routes, indexed by host and path. (Lookup is being written in its own change.)
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Route<usize>>,
}

impl RouteTable {
    /// Indexes `routes`, given in file order.
    #[must_use]
    pub fn new(routes: Vec<Route<usize>>) -> Self {
        Self { routes }
    }

    /// The routes in file order.
    #[must_use]
    pub fn routes(&self) -> &[Route<usize>] {
        &self.routes
    }
}

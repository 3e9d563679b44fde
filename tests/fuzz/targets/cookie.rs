//! Cookies: found alike by every reader of ours, believed only when issued by us.

#![no_main]

differential::target!("cookie");

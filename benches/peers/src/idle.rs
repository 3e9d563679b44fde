//! Memory of a connection that does nothing: many are opened, each asks once, and each is asked again afterwards.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::failure::{Failure, While};
use crate::load::Load;
use crate::peer::{Instance, Places};
use crate::process::{interrupted, pause};
use crate::tool::{Extra, Running};

/// Longest for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the connections do nothing.
const REST: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET /64 HTTP/1.1\r\nHost: bench\r\n\r\n";
/// The body of every answer.
const BODY: &[u8] = &[b'x'; 64];

/// Bytes of memory of its own that `instance` takes for each of `number` idle connections.
///
/// # Errors
/// When a connection is refused or not served, before or after the rest.
pub fn bytes_per_connection(load: &Load, instance: &Instance, places: &Places, number: u32) -> Result<f64, Failure> {
    // So that what the first requests set up is there before.
    Running::start(load, instance, places, &Extra::default(), Duration::from_secs(1))?.finish()?;
    pause(Duration::from_millis(500))?;
    let before = instance.child.memory()?.anonymous;
    let mut connections = Vec::new();
    for n in 0..number {
        let connection = TcpStream::connect(instance.plain()).doing(&format!("opening connection {n}"))?;
        connection.set_read_timeout(Some(ANSWER)).doing("setting a time limit")?;
        connections.push(connection);
        ask(&mut connections[n as usize]).doing(&format!("first request on connection {n}"))?;
    }
    pause(REST)?;
    let after = instance.child.memory()?.anonymous;
    for (n, connection) in connections.iter_mut().enumerate() {
        ask(connection).doing(&format!("second request on connection {n}, after the rest"))?;
    }
    Ok(after.saturating_sub(before) as f64 / f64::from(number))
}

fn ask(connection: &mut TcpStream) -> Result<(), Failure> {
    if interrupted() {
        return Err(Failure("interrupted".into()));
    }
    connection.write_all(REQUEST)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 2_048];
    while !answer.ends_with(BODY) {
        let read = connection.read(&mut buffer)?;
        if read == 0 {
            return Err(Failure("closed".into()));
        }
        answer.extend_from_slice(&buffer[..read]);
        if answer.len() > buffer.len() {
            return Err(Failure("an answer too long".into()));
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(Failure("an error status".into())) }
}

//! Memory of a connection that does nothing: many are opened, each asks once, and each is asked again afterwards.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::failure::{Failure, While};
use crate::load::Load;
use crate::peer::{Instance, Places};
use crate::process::{interrupted, pause};
use crate::tool::{Extra, Running};

/// Longest for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest for all of it.
const ALL: Duration = Duration::from_secs(120);
/// Connections that ask at once.
const BATCH: usize = 64;
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
    let begun = Instant::now();
    // So that what the first requests set up is there before.
    Running::start(load, instance, places, &Extra::default(), Duration::from_secs(1))?.finish()?;
    pause(Duration::from_millis(500))?;
    let before = instance.child.memory()?.anonymous;
    let mut connections: Vec<TcpStream> = Vec::new();
    while connections.len() < number as usize {
        let (first, more) = (connections.len(), BATCH.min(number as usize - connections.len()));
        for n in first..first + more {
            connections.push(open(instance).doing(&format!("opening connection {n}"))?);
        }
        ask(&mut connections[first..], begun).doing("the first request of each connection")?;
    }
    pause(REST)?;
    let after = instance.child.memory()?.anonymous;
    for batch in connections.chunks_mut(BATCH) {
        ask(batch, begun).doing("the second request of each connection, after the rest")?;
    }
    Ok(after.saturating_sub(before) as f64 / f64::from(number))
}

fn open(instance: &Instance) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(instance.plain())?;
    connection.set_read_timeout(Some(ANSWER))?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// One request on each, and its answer.
fn ask(connections: &mut [TcpStream], begun: Instant) -> Result<(), Failure> {
    if interrupted() {
        return Err(Failure("interrupted".into()));
    }
    if begun.elapsed() > ALL {
        return Err(Failure(format!("not done after {} s", ALL.as_secs())));
    }
    for connection in connections.iter_mut() {
        connection.write_all(REQUEST)?;
    }
    connections.iter_mut().try_for_each(answer)
}

fn answer(connection: &mut TcpStream) -> Result<(), Failure> {
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

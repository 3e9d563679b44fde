//! A connection in memory: what comes in arrives in pieces, what goes out is taken in pieces, and nothing ever waits for long.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a connection; the other end is a script.
#[derive(Debug, Default)]
pub struct Pipe {
    input: Vec<u8>,
    at: usize,
    /// Positions no read goes across, ascending.
    cuts: Vec<usize>,
    /// Nothing can be read before something was written: a server that answers.
    gated: bool,
    waiting: Option<Waker>,
    /// Most bytes one write takes, in turn; empty: everything.
    takes: Vec<usize>,
    writes: usize,
    /// What was written.
    pub output: Vec<u8>,
}

// === impl Pipe ===

impl Pipe {
    /// `input` arrives at once, then the end of the stream.
    #[must_use]
    pub fn whole(input: &[u8]) -> Self {
        Self { input: input.to_vec(), ..Self::default() }
    }

    /// `input` arrives up to each of `cuts` in turn.
    #[must_use]
    pub fn split(input: &[u8], cuts: &[usize]) -> Self {
        Self { input: input.to_vec(), cuts: cuts.to_vec(), ..Self::default() }
    }

    /// `input` arrives at once after the first write.
    #[must_use]
    pub fn answering(input: &[u8]) -> Self {
        Self { input: input.to_vec(), gated: true, ..Self::default() }
    }

    /// Nothing arrives; a write takes so many bytes, in turn.
    #[must_use]
    pub fn taking(takes: Vec<usize>) -> Self {
        Self { takes, ..Self::default() }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.gated {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let at = self.at;
        let end = self.cuts.iter().copied().find(|cut| *cut > at).unwrap_or(self.input.len());
        let end = end.min(self.input.len()).min(at + buf.remaining());
        buf.put_slice(&self.input[at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let most = if self.takes.is_empty() { buf.len() } else { self.takes[self.writes % self.takes.len()] };
        self.writes += 1;
        let taken = most.clamp(1, buf.len().max(1)).min(buf.len());
        self.output.extend_from_slice(&buf[..taken]);
        self.gated = false;
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// What pingora wants to know of a connection: nothing, here.

impl Shutdown for Pipe {
    fn shutdown<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(ready(()))
    }
}

impl UniqueID for Pipe {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for Pipe {}

impl Peek for Pipe {}

impl GetTimingDigest for Pipe {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Pipe {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Pipe {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

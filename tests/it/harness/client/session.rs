//! A client that keeps its connection and never retries: every request that fails is a failure it remembers.

use super::super::wait::WAIT_MAX;
use super::{Client, Response};

/// Failures remembered with their words; beyond that they are only counted.
const FAILURES_KEPT: usize = 20;

/// One user with one connection at a time. A connection the server announced to close is replaced; a request that was sent is never sent
/// again.
pub(crate) struct Session {
    address: String,
    client: Option<Client>,
    fields: String,
    requests: u64,
    failures: Vec<String>,
    failed: u64,
}

// === impl Session ===

impl Session {
    /// A user of the proxy at `address`.
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            client: None,
            fields: String::new(),
            requests: 0,
            failures: Vec::new(),
            failed: 0,
        }
    }

    /// Fields (whole lines with their line breaks) that go with every request.
    pub(crate) fn with(mut self, fields: &str) -> Self {
        fields.clone_into(&mut self.fields);
        self
    }

    /// Connects if there is no connection.
    pub(crate) async fn connect(&mut self) -> std::io::Result<()> {
        if self.client.is_none() {
            self.client = Some(Client::try_connect(&self.address).await?);
        }
        Ok(())
    }

    /// Whether a connection is open, as far as the client knows.
    pub(crate) fn connected(&self) -> bool {
        self.client.is_some()
    }

    /// A GET that has to succeed.
    pub(crate) async fn get(&mut self, path: &str) -> Response {
        self.try_get(path).await.unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// A GET, or why it failed.
    pub(crate) async fn try_get(&mut self, path: &str) -> Result<Response, String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{}\r\n", self.fields);
        self.request(request.as_bytes()).await
    }

    /// One request, its bytes given whole.
    pub(crate) async fn request(&mut self, bytes: &[u8]) -> Result<Response, String> {
        self.requests += 1;
        let sent = self.requests;
        let result = match tokio::time::timeout(WAIT_MAX, self.exchange(bytes)).await {
            Ok(result) => result.map_err(|e| format!("request {sent}: {e}")),
            Err(_) => Err(format!("request {sent}: no response within {WAIT_MAX:?}")),
        };
        match &result {
            Ok(response) if response.keeps() => {}
            Ok(_) => self.client = None,
            Err(failure) => {
                self.client = None;
                self.failed += 1;
                if self.failures.len() < FAILURES_KEPT {
                    self.failures.push(failure.clone());
                }
            }
        }
        result
    }

    async fn exchange(&mut self, bytes: &[u8]) -> Result<Response, String> {
        self.connect().await.map_err(|e| format!("no connection: {e}"))?;
        let client = self.client.as_mut().ok_or("no connection")?;
        client.try_send(bytes).await.map_err(|e| format!("not sent: {e}"))?;
        let method = if bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
        client.try_response(method).await.map_err(|fault| fault.to_string())
    }

    /// How many requests failed, and the words of the first.
    pub(crate) fn failures(&self) -> (u64, &[String]) {
        (self.failed, &self.failures)
    }
}

//! The events of the admin API as they happen, taken up again where a connection was lost.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::model::Event;
use super::sse::{Message, Parser};
use crate::cli::client::Admin;
use crate::cli::text::escape_query;
use crate::net::http::Stream;

/// Events that wait to be taken.
const QUEUE_MAX: usize = 64;
/// The first pause before a lost connection is tried again, doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest silence of a connection that lives: three heartbeats of the admin API.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Every event from when it was opened on, as long as the process on the other side keeps them.
#[derive(Debug)]
pub(in crate::cli) struct Events {
    heard: mpsc::Receiver<Event>,
    _reader: JoinSet<()>,
}

struct Reader {
    admin: Admin,
    /// The newest event that was taken.
    last: Option<String>,
    heard: mpsc::Sender<Event>,
}

// === impl Events ===

impl Events {
    /// Begins with the next event. If there is no connection yet, it is tried for: what happens before there is one is not heard of.
    pub(in crate::cli) async fn open(admin: &Admin) -> Self {
        let (sender, heard) = mpsc::channel(QUEUE_MAX);
        let reader = Reader { admin: admin.clone(), last: None, heard: sender };
        let stream = reader.connect().await;
        let mut task = JoinSet::new();
        task.spawn(reader.run(stream));
        Self { heard, _reader: task }
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> Event {
        match self.heard.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Reads for as long as anybody listens. Whether there is an admin API at all, others find out.
    async fn run(mut self, mut stream: Option<Stream>) {
        let mut pause = RETRY_MIN;
        loop {
            if let Some(open) = stream.take() {
                pause = RETRY_MIN;
                self.read(open).await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.heard.closed() => return,
            }
            pause = (pause * 2).min(RETRY_MAX);
            stream = self.connect().await;
        }
    }

    async fn connect(&self) -> Option<Stream> {
        let after = self.last.as_ref().map(|id| format!("?after={}", escape_query(id)));
        self.admin.open(&format!("/v1/events{}", after.unwrap_or_default())).await.ok()
    }

    /// Reads until the connection is lost, or there is a reason to open another one.
    async fn read(&mut self, mut stream: Stream) {
        let mut parser = Parser::default();
        while let Ok(Ok(Some(bytes))) = tokio::time::timeout(SILENCE_MAX, stream.next()).await {
            let Ok(messages) = parser.take(&bytes) else { return };
            for message in messages {
                if !self.take(message).await {
                    return;
                }
            }
        }
    }

    /// Whether to read on.
    async fn take(&mut self, message: Message) -> bool {
        if let Some(id) = message.id {
            self.last = Some(id);
        }
        match message.name.as_str() {
            // What is missing is seen in what is true now.
            "gap" => true,
            "" => match serde_json::from_str(&message.data) {
                Ok(event) => self.heard.send(event).await.is_ok(),
                Err(_) => true,
            },
            _ => false,
        }
    }
}

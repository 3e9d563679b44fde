//! The workers as control sees them, when one of them takes no commands.

use std::io;
use std::path::Path;

use super::*;
use crate::clock;
use crate::config::settings::{Limits, Underscores};
use crate::core::id::Name;

/// Longest time for anything that waits for workers: the bound itself and some.
const ALL_MAX: Duration = Duration::from_millis(2_500);

type Queue = mpsc::Receiver<Command>;

/// Two workers whose queues are the test's. The queue of the first is full, as if it hung.
fn one_hangs() -> (Workers, Queue, Queue) {
    let (workers, stuck, free) = two();
    fill(&workers);
    (workers, stuck, free)
}

fn two() -> (Workers, Queue, Queue) {
    let ((first, one), (second, two)) = (mpsc::channel(COMMANDS_MAX), mpsc::channel(COMMANDS_MAX));
    let shared = Shared {
        senders: Mutex::new(vec![first, second]),
        threads: Mutex::default(),
        running: Arc::new(AtomicUsize::new(2)),
        listeners: Mutex::default(),
        finished: tokio::sync::Notify::new(),
        stop: watch::Sender::new(false),
    };
    (Workers(Arc::new(shared)), one, two)
}

fn fill(workers: &Workers) {
    while workers.senders()[0].try_send(Command::Settle(oneshot::channel().0)).is_ok() {}
}

fn listener(listen: ListenAddress) -> Arc<Listener> {
    Arc::new(Listener {
        name: Name::new("public").expect("name"),
        listen,
        tls: None,
        trusted_proxies: Vec::new(),
        underscores: Underscores::Drop,
        limits: Limits::default(),
    })
}

fn any_port() -> Arc<Listener> {
    listener(ListenAddress::Tcp(([127, 0, 0, 1], 0).into()))
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(ALL_MAX, work).await.expect("it has a bound")
}

/// What is logged on this thread, until the guard goes.
fn logged() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    struct Tee(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Tee {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let tee = Arc::clone(&seen);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Tee(Arc::clone(&tee))).finish();
    (seen, tracing::subscriber::set_default(subscriber))
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_takes_no_commands_keeps_no_listener_from_the_others() {
    let (workers, stuck, mut free) = one_hangs();
    let (seen, _guard) = logged();
    let prepared = workers.prepare(&[any_port()]).expect("binds");
    in_time(prepared.commit()).await;
    assert!(matches!(free.try_recv(), Ok(Command::Listen(..))));
    let log = String::from_utf8(lock(&seen).clone()).expect("UTF-8");
    let line: Vec<_> = log.lines().filter(|line| line.contains("ERROR") && line.contains("worker=0")).collect();
    assert!(line.len() == 1 && line[0].contains("listeners"), "{log}");
    assert!(!log.contains("worker=1"), "{log}");
    // A listener that goes is told in the same way.
    in_time(workers.prepare(&[]).expect("nothing to bind").commit()).await;
    assert!(matches!(free.try_recv(), Ok(Command::Close(_))));
    assert_eq!(stuck.len(), COMMANDS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_takes_no_commands_keeps_no_other_from_settling_and_is_no_success() {
    let (workers, _stuck, mut free) = one_hangs();
    let answering = tokio::spawn(async move {
        let command = free.recv().await;
        let Some(Command::Settle(done)) = command else { panic!("another command") };
        done.send(()).expect("somebody waits");
    });
    assert!(!in_time(workers.settled()).await);
    in_time(answering).await.expect("the other was asked");
}

#[tokio::test(start_paused = true)]
async fn settled_is_what_every_worker_says_that_is_left() {
    let (workers, mut one, two) = two();
    drop(two);
    let answering = tokio::spawn(async move {
        while let Some(Command::Settle(done)) = one.recv().await {
            let _ = done.send(());
        }
    });
    assert!(in_time(workers.settled()).await, "one that is gone begins nothing any more");
    answering.abort();
    let _ = answering.await;
    assert!(in_time(workers.settled()).await, "none is left");
}

#[tokio::test(start_paused = true)]
async fn draining_takes_socket_files_away_before_it_waits_for_any_worker() {
    let path = std::env::temp_dir().join(format!("tidegate-workers-{}.sock", std::process::id()));
    let (workers, _stuck, mut free) = two();
    let prepared = workers.prepare(&[listener(ListenAddress::Unix(path.clone()))]).expect("binds");
    in_time(prepared.commit()).await;
    assert!(matches!(free.try_recv(), Ok(Command::Listen(..))));
    fill(&workers);
    let exists = |path: &Path| path.try_exists().expect("can be seen");
    assert!(exists(&path));
    let now = clock::now();
    let mut drain = Box::pin(workers.drain(now, now));
    tokio::select! {
        biased;
        () = &mut drain => panic!("the queue is full"),
        () = std::future::ready(()) => {}
    }
    assert!(!exists(&path), "clients would find a socket on which nobody accepts");
    in_time(drain).await;
    assert!(matches!(free.try_recv(), Ok(Command::Drain { .. })), "the others drain all the same");
}

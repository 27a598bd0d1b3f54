//! Threads: scheduling on all vCPUs, wake-ups between them, and registers that survive being
//! scheduled away.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;

const ROUNDS: u64 = 200;

thread_local! {
    static MINE: Cell<u64> = const { Cell::new(0) };
}

pub fn run(count: u64) {
    println!("vCPUs: {}", thread::available_parallelism().expect("the number of vCPUs is known"));
    println!("counted: {}", count_together(count));
    println!("received: {}", send_to_one(count));
    println!("took turns: {}", take_turns(count));
    println!("floats: {}", floats(count));
}

/// Every thread adds to one atomic, one mutex and one thread-local.
fn count_together(count: u64) -> u64 {
    let atomic = Arc::new(AtomicU64::new(0));
    let mutex = Arc::new(Mutex::new(0));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let (atomic, mutex) = (atomic.clone(), mutex.clone());
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    atomic.fetch_add(1, Ordering::Relaxed);
                    *mutex.lock().expect("no thread has panicked") += 1;
                    MINE.set(MINE.get() + 1);
                }
                MINE.get()
            })
        })
        .collect();
    let own: u64 =
        threads.into_iter().map(|thread| thread.join().expect("the thread has not panicked")).sum();
    let locked = *mutex.lock().expect("no thread has panicked");
    assert_eq!((own, locked), (atomic.load(Ordering::Relaxed), count * ROUNDS));
    assert_eq!(MINE.get(), 0, "another thread's local is seen here");
    own
}

/// All threads send to one channel.
fn send_to_one(count: u64) -> u64 {
    let (sender, receiver) = mpsc::channel();
    for thread in 0..count {
        let sender = sender.clone();
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                sender.send(thread).expect("the receiver is there");
            }
        });
    }
    drop(sender);
    receiver.iter().count() as u64
}

/// A turn goes round: each thread sleeps until the one before it wakes it.
fn take_turns(count: u64) -> u64 {
    let turn = Arc::new((Mutex::new(0), Condvar::new()));
    let rounds = 20;
    let threads: Vec<_> = (0..count)
        .map(|me| {
            let turn = turn.clone();
            thread::spawn(move || {
                let (number, changed) = &*turn;
                for _ in 0..rounds {
                    let mut number = number.lock().expect("no thread has panicked");
                    while *number % count != me {
                        number = changed.wait(number).expect("no thread has panicked");
                    }
                    *number += 1;
                    changed.notify_all();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread has not panicked");
    }
    let turns = *turn.0.lock().expect("no thread has panicked");
    assert_eq!(turns, rounds * count);
    turns
}

/// Each thread keeps a sum in floating-point registers while all the others do the same.
fn floats(count: u64) -> &'static str {
    let start = Arc::new(Barrier::new(usize::try_from(count).expect("it fits")));
    let sum = |me: u64| {
        let mut sum = 0.0;
        for i in 1..=2000 {
            sum += f64::from(i) / (me + 1) as f64;
            if i % 100 == 0 {
                thread::yield_now();
            }
        }
        sum
    };
    let threads: Vec<_> = (0..count)
        .map(|me| {
            let start = start.clone();
            thread::spawn(move || {
                start.wait();
                sum(me)
            })
        })
        .collect();
    for (me, thread) in (0..).zip(threads) {
        let theirs: f64 = thread.join().expect("the thread has not panicked");
        assert_eq!(theirs.to_bits(), sum(me).to_bits(), "thread {me} has lost its registers");
    }
    "equal"
}

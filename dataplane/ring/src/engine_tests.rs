//! Goal: the engine moves the right bytes on the ring and on threads, and gives everything back.
//! Method: one table of steps on a real file, run on both engines; gauges are read at the end.
#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::*;
use crate::buffer::{Pool, PoolLimits};
use crate::disk::Files;
use crate::pipe::Pipes;
use crate::staged::{StagedFile, Staging};

const BUFFER: usize = 64 * 1024;

fn file() -> (tempfile::TempDir, FileRef, File) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let plain = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    (
        dir,
        Arc::new(OwnedFd::from(plain.try_clone().unwrap())),
        plain,
    )
}

fn on_both(test: impl AsyncFn(Ring, Pool, Pipes)) {
    for kind in [EngineKind::Uring, EngineKind::Threads] {
        let gauges = Arc::new(Gauges::default());
        let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
            .enable_timer()
            .build()
            .unwrap();
        runtime.block_on(async {
            let threads = ThreadPool::new("test", 4);
            let ring = match kind {
                EngineKind::Uring => {
                    let limits = RingLimits {
                        entries: 64,
                        workers_max: 8,
                    };
                    Ring::start(limits, &threads, Arc::clone(&gauges))
                }
                EngineKind::Threads => Ring::on_threads(&threads, Arc::clone(&gauges)),
            };
            if ring.kind() != kind {
                eprintln!("skipped: io_uring is refused here");
                return;
            }
            let limits = PoolLimits {
                buffer_bytes: BUFFER,
                budget_bytes: 8 * BUFFER,
                keep_bytes: 2 * BUFFER,
            };
            let pool = Pool::new(limits, Arc::clone(&gauges));
            let pipes = Pipes::new(2, Arc::clone(&gauges));
            test(ring.clone(), pool.clone(), pipes).await;
        });
        assert_eq!(gauges.buffers_in_use.value(), 0, "{kind:?}");
        assert_eq!(gauges.inflight_operations.value(), 0, "{kind:?}");
        assert_eq!(gauges.pipes_in_use.value(), 0, "{kind:?}");
    }
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| seed.wrapping_add((i % 251) as u8))
        .collect()
}

#[test]
fn bytes_written_are_bytes_read() {
    on_both(async |ring, pool, _| {
        let (_dir, file, plain) = file();
        ring.allocate(&file, 0, 3 * BUFFER as u64).await.unwrap();
        for n in [2_u64, 0, 1] {
            let mut lease = pool.lease().await;
            lease.append(&pattern(n as u8, BUFFER));
            let (outcome, lease) = ring.write_at(&file, lease, n * BUFFER as u64).await;
            assert_eq!(outcome.unwrap(), BUFFER);
            drop(lease);
        }
        ring.sync(&file).await.unwrap();
        let mut seen = vec![0; 3 * BUFFER];
        plain.read_exact_at(&mut seen, 0).unwrap();
        for n in 0..3_usize {
            assert_eq!(seen[n * BUFFER..][..BUFFER], pattern(n as u8, BUFFER));
        }
        let lease = pool.lease().await;
        let (outcome, lease) = ring.read_at(&file, lease, BUFFER as u64 - 10, 20).await;
        assert_eq!(outcome.unwrap(), 20);
        assert_eq!(lease.as_slice(), &seen[BUFFER - 10..BUFFER + 10]);
        let (outcome, _) = ring.read_at(&file, lease, 3 * BUFFER as u64, 20).await;
        assert_eq!(outcome.unwrap(), 0, "the end of the file");
    });
}

#[test]
fn many_operations_share_the_ring() {
    on_both(async |ring, pool, _| {
        let (_dir, file, plain) = file();
        plain.write_all_at(&pattern(9, 256 * 1024), 0).unwrap();
        let mut tasks = Vec::new();
        for n in 0..500_u64 {
            let (ring, pool, file) = (ring.clone(), pool.clone(), Arc::clone(&file));
            tasks.push(monoio::spawn(async move {
                let lease = pool.lease().await;
                let (outcome, lease) = ring.read_at(&file, lease, n * 500, 500).await;
                assert_eq!(outcome.unwrap(), 500);
                assert_eq!(
                    lease.as_slice(),
                    &pattern(9, 256 * 1024)[n as usize * 500..][..500]
                );
            }));
        }
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn a_dropped_operation_gives_its_buffer_back() {
    on_both(async |ring, pool, _| {
        let (_dir, file, plain) = file();
        plain.write_all_at(&pattern(1, BUFFER), 0).unwrap();
        for _ in 0..100 {
            let lease = pool.lease().await;
            let mut read = Box::pin(ring.read_at(&file, lease, 0, BUFFER));
            let polled = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(read.as_mut().poll(cx).is_ready())
            });
            let _ = polled.await;
            drop(read);
        }
        // All eight buffers can be had again, so none was lost.
        let mut all = Vec::new();
        for _ in 0..8 {
            all.push(pool.lease().await);
        }
    });
}

#[test]
fn errors_come_back_with_the_buffer() {
    on_both(async |ring, pool, _| {
        let file: FileRef = Arc::new(OwnedFd::from(File::open("/etc/passwd").unwrap()));
        let mut lease = pool.lease().await;
        lease.append(b"x");
        let (outcome, lease) = ring.write_at(&file, lease, 0).await;
        let partial = outcome.unwrap_err();
        assert_eq!(
            (partial.written, partial.error.raw_os_error()),
            (0, Some(libc::EBADF))
        );
        assert_eq!(lease.as_slice(), b"x");
        let full: FileRef = Arc::new(OwnedFd::from(
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        ));
        let (outcome, _) = ring.write_at(&full, lease, 0).await;
        assert_eq!(
            outcome.unwrap_err().error.raw_os_error(),
            Some(libc::ENOSPC)
        );
    });
}

#[test]
fn splices_carry_a_file_into_a_socket() {
    on_both(async |ring, _, pipes| {
        use std::io::Read;
        let (_dir, file, plain) = file();
        let content = pattern(3, 300_000);
        plain.write_all_at(&content, 0).unwrap();
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            theirs.read_to_end(&mut seen).unwrap();
            seen
        });
        let mut at = 0;
        while at < content.len() {
            let mut pipe = pipes.take().unwrap();
            let want = pipe.capacity().min(content.len() - at);
            let count = if at == 0 {
                let count = ring.splice_in(&file, 0, pipe.writer(), want).await.unwrap();
                pipe.filled(count);
                count
            } else {
                pipe.splice_in_now(&file, at as u64, want).unwrap()
            };
            at += count;
            while pipe.held() > 0 {
                match pipe.splice_out_now(ours.as_fd(), true) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        std::thread::yield_now();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        drop(ours);
        assert_eq!(reader.join().unwrap(), content);
    });
}

/// The file's second descriptor, past the page cache. `None` where that is not possible.
fn direct(dir: &tempfile::TempDir) -> Option<FileRef> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(dir.path().join("f"));
    opened.ok().map(|file| Arc::new(OwnedFd::from(file)))
}

#[test]
fn both_ways_of_a_staged_file_meet_in_it() {
    use proxy_core::units::Offset;
    use proxy_transfer::Disk;

    on_both(async |ring, pool, _| {
        let (dir, file, plain) = file();
        let direct = direct(&dir);
        if direct.is_none() {
            eprintln!("skipped: no direct I/O in {}", dir.path().display());
        }
        let staged = StagedFile::new(Arc::clone(&file), direct);
        let disk = Staging(Files { ring, pool });
        disk.0.ring.allocate(&file, 0, 1 << 20).await.unwrap();
        // Whole strides and what is none, over each other, first and last: the last write counts.
        let writes = [
            (0, BUFFER),
            (BUFFER, 100),
            (BUFFER + 100, 4096 - 100),
            (BUFFER + 4096, 8192),
            (10, 5000),
            (4096, 4096),
            (BUFFER + 4096 + 8192, 1),
            (4096, 4095),
            (BUFFER - 4096, 8192),
        ];
        let mut model = vec![0; BUFFER + 4096 + 8192 + 1];
        for (n, (at, len)) in writes.into_iter().enumerate() {
            let mut lease = pool_lease(&disk).await;
            lease.append(&pattern(n as u8, len));
            model[at..at + len].copy_from_slice(&pattern(n as u8, len));
            let (outcome, _) = disk.write_at(&staged, lease, Offset::new(at as u64)).await;
            assert_eq!(outcome.unwrap(), len, "{len} bytes at {at}");
        }
        disk.sync(&staged).await.unwrap();
        let mut seen = vec![0; model.len()];
        plain.read_exact_at(&mut seen, 0).unwrap();
        assert!(seen == model);
        let (outcome, read) = disk
            .read_at(&staged, pool_lease(&disk).await, Offset::new(4090), 20)
            .await;
        assert_eq!(outcome.unwrap(), 20);
        assert_eq!(read.as_slice(), &model[4090..4110]);
    });
}

async fn pool_lease(disk: &Staging) -> Lease {
    let mut lease = disk.0.pool.lease().await;
    lease.clear();
    lease
}

//! A new gateway takes over from the one that runs: it gets its listening sockets, says when it is ready, and the old one drains.
//!
//! Always: the sockets themselves change hands (`SCM_RIGHTS`, unix(7)), so that a connection that waits to be accepted waits for whoever
//! accepts next and none is lost; a successor that dies before it is ready has changed nothing. The meeting place is a socket in a folder
//! that only the gateway's account enters: whoever reaches it gets the sockets.

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use insula_telemetry::Shutdown;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::listener::{Scheme, Spoken};

/// As many as the kernel hands over at once (`SCM_MAX_FD`).
const MOST: usize = 253;
/// What a successor says when it serves.
const READY: &[u8] = b"ready";
/// A successor may have a large catalog to read first.
const PATIENCE: Duration = Duration::from_secs(120);

/// The one before, until it is told that it may go.
#[derive(Debug)]
pub(crate) struct Predecessor(UnixStream);

impl Predecessor {
    /// Asks whoever runs for its sockets; `None` when nobody does.
    pub(crate) fn meet(path: &Path) -> std::io::Result<Option<(Self, Vec<Spoken>)>> {
        let Ok(stream) = UnixStream::connect(path) else { return Ok(None) };
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut schemes = [0; MOST];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut room);
        let message = recvmsg(&stream, &mut [IoSliceMut::new(&mut schemes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let sockets: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|part| match part {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            })
            .flatten()
            .collect();
        if sockets.is_empty() || sockets.len() != message.bytes {
            return Err(std::io::Error::other("the running gateway has handed over nothing"));
        }
        let schemes = schemes.iter().map(|byte| if *byte == b's' { Scheme::Https } else { Scheme::Http });
        Ok(Some((Self(stream), schemes.zip(sockets.into_iter().map(TcpListener::from)).collect())))
    }

    /// Tells it that it may go.
    pub(crate) fn release(mut self) -> std::io::Result<()> {
        self.0.write_all(READY)
    }
}

/// Waits for a successor, hands the sockets over, and asks for a stop when it says that it serves.
pub(crate) async fn await_successor(path: PathBuf, sockets: Vec<Spoken>, shutdown: Shutdown) {
    let meeting = std::fs::remove_file(&path)
        .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
        .and_then(|()| tokio::net::UnixListener::bind(&path));
    let meeting = match meeting {
        Ok(meeting) => meeting,
        Err(error) => {
            return tracing::error!(path = %path.display(), %error, "no successor can take over: a restart will be seen");
        }
    };
    loop {
        let stream = tokio::select! {
            accepted = meeting.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => return tracing::error!(%error, "no successor can take over"),
            },
            // The sockets are closed with this: nobody accepts any more.
            () = shutdown.requested() => return,
        };
        let Ok(copies) =
            sockets.iter().map(|(scheme, socket)| Ok((*scheme, socket.try_clone()?))).collect::<std::io::Result<Vec<_>>>()
        else {
            continue;
        };
        let handed = tokio::task::spawn_blocking(move || hand_over(stream.into_std()?, &copies)).await;
        match handed {
            Ok(Ok(true)) => {
                tracing::info!("a successor serves: finishing what runs");
                return shutdown.trigger();
            }
            Ok(Ok(false)) => tracing::warn!("a successor went away before it was ready: serving on"),
            Ok(Err(error)) => tracing::warn!(%error, "a successor could not take over: serving on"),
            Err(error) => tracing::warn!(%error, "a successor could not take over: serving on"),
        }
    }
}

/// Whether the successor says that it serves.
fn hand_over(mut stream: UnixStream, sockets: &[Spoken]) -> std::io::Result<bool> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let schemes: Vec<u8> = sockets.iter().map(|(scheme, _)| if *scheme == Scheme::Https { b's' } else { b'c' }).collect();
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(std::io::Error::other("more sockets than can be handed over"));
    }
    sendmsg(&stream, &[IoSlice::new(&schemes)], &mut ancillary, SendFlags::empty())?;
    let mut said = [0; READY.len()];
    match stream.read_exact(&mut said) {
        Ok(()) => Ok(said == READY),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

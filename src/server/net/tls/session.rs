//! One connection's session, without its socket, which each call is handed: what a worker's thread, a task of the
//! control thread and a blocking thread do with theirs is the same.
//!
//! Reading says 0 at the end of the connection, and `WouldBlock` when a socket that does not block has no more.
//! Writing takes what the socket took *whole*: after `WouldBlock`, or fewer bytes than offered, the next call must
//! offer the bytes that were not taken first, as they were. So nothing that was taken is ever left behind here, and
//! who keeps what was not taken needs to know nothing of records.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustls::Connection;
use smallvec::SmallVec;

/// What a handshake waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shake {
    /// Nothing: it is over.
    Done,
    /// Bytes of the peer.
    Read,
    /// Room in the socket.
    Write,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    tls: Connection,
    /// Bytes that are decrypted and not read.
    ready: usize,
    /// The socket had no more when it was last read.
    drained: bool,
    /// Bytes that are encrypted, and whose records the socket has not taken whole.
    owed: usize,
    /// The peer has said that nothing more comes; its socket may stay open.
    ended: bool,
    /// What is wrong with the connection, once what came before was read.
    failure: Option<io::Error>,
}

impl Session {
    /// Before the handshake, of either side.
    pub fn new(tls: impl Into<Connection>) -> Self {
        Self { tls: tls.into(), ready: 0, drained: false, owed: 0, ended: false, failure: None }
    }

    /// Before the end of the handshake, when no data may be read or written.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Reading again is of use although no event will say so.
    pub fn has_more(&self) -> bool {
        self.ready > 0 || !self.drained || self.ended || self.failure.is_some()
    }

    /// Goes on with the handshake as far as the socket lets it.
    pub fn shake(&mut self, socket: &mut (impl Read + Write)) -> io::Result<Shake> {
        loop {
            if !self.send(socket)? {
                return Ok(Shake::Write);
            }
            if !self.tls.is_handshaking() {
                return Ok(Shake::Done);
            }
            match self.receive(socket) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Shake::Read),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads what was sent to us.
    pub fn read(&mut self, socket: &mut (impl Read + Write), buf: &mut [u8]) -> io::Result<usize> {
        if self.ready == 0
            && let Some(failure) = self.failure.take()
        {
            return Err(failure);
        }
        // More may have come since: the event that says so is why this is called.
        self.drained = false;
        let mut got = self.take(buf)?;
        while got < buf.len() && (got == 0 || !self.drained) {
            match self.receive(socket) {
                Ok(0) if got == 0 => return Ok(0),
                Ok(0) => break,
                Ok(_) => got += self.take(&mut buf[got..])?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if got == 0 => return Err(e),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => {
                    self.failure = Some(e);
                    break;
                }
            }
        }
        Ok(got)
    }

    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ready == 0 {
            return Ok(0);
        }
        let n = self.tls.reader().read(buf)?;
        self.ready -= n;
        Ok(n)
    }

    /// Takes records from the socket and opens them; 0 at the end.
    fn receive(&mut self, socket: &mut (impl Read + Write)) -> io::Result<usize> {
        let mut watched = Watched { socket, drained: false };
        let received = self.tls.read_tls(&mut watched);
        self.drained = watched.drained;
        let n = received?;
        if n == 0 {
            return Ok(0);
        }
        match self.tls.process_new_packets() {
            Ok(state) => {
                self.ready = state.plaintext_bytes_to_read();
                self.ended = state.peer_has_closed();
            }
            Err(e) => {
                // The peer is told why, if it still listens.
                let _ = self.send(socket);
                return Err(io::Error::new(ErrorKind::InvalidData, e));
            }
        }
        // Of the handshake, or an answer to a change of keys. What does not leave now leaves with the next write.
        self.send(socket)?;
        Ok(n)
    }

    /// Sends bytes; see the module.
    pub fn write(&mut self, socket: &mut impl Write, mut bytes: &mut [IoSlice<'_>]) -> io::Result<usize> {
        if !self.send(socket)? || self.tls.is_handshaking() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut done = std::mem::take(&mut self.owed);
        IoSlice::advance_slices(&mut bytes, done);
        while !bytes.is_empty() {
            let n = self.tls.writer().write_vectored(bytes)?;
            if n == 0 {
                break;
            }
            if !self.send(socket)? {
                self.owed = n;
                return if done > 0 { Ok(done) } else { Err(ErrorKind::WouldBlock.into()) };
            }
            IoSlice::advance_slices(&mut bytes, n);
            done += n;
        }
        Ok(done)
    }

    /// As [`Session::write`], of one piece.
    pub fn write_one(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.write(socket, &mut [IoSlice::new(bytes)])
    }

    /// As [`Session::write`], of pieces that stay as they are.
    pub fn write_pieces(&mut self, socket: &mut impl Write, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pieces: SmallVec<[IoSlice<'_>; 32]> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        self.write(socket, &mut pieces)
    }

    /// Nothing more will be written: the peer is told so with what is sent next.
    pub fn end(&mut self) {
        self.tls.send_close_notify();
    }

    /// Hands the socket the records that wait; false when it took them in part.
    pub fn send(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

/// A socket of which it is noted whether it had less than it was asked for.
struct Watched<'a, S> {
    socket: &'a mut S,
    drained: bool,
}

impl<S: Read> Read for Watched<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.socket.read(buf);
        self.drained = match &result {
            // The end: the next read finds it, too.
            Ok(0) => false,
            Ok(n) => *n < buf.len(),
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        };
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Arc;

    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

    /// A socket that has what was put in, and takes so many bytes.
    #[derive(Default)]
    struct Pipe {
        input: VecDeque<u8>,
        output: Vec<u8>,
        room: usize,
    }

    impl Read for Pipe {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.input.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.input.read(buf)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let n = buf.len().min(self.room);
            if n == 0 && !buf.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.output.extend_from_slice(&buf[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Any certificate is believed.
    #[derive(Debug)]
    struct Believes(rustls::crypto::WebPkiSupportedAlgorithms);

    impl rustls::client::danger::ServerCertVerifier for Believes {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.supported_schemes()
        }
    }

    /// An Ed25519 key, and bytes in the place of a certificate, which nobody looks at here.
    fn identity(provider: &rustls::crypto::CryptoProvider) -> CertifiedKey {
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend([7; 32]);
        let key = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(der).into());
        CertifiedKey::new(vec![vec![0x30, 0].into()], key.expect("a key"))
    }

    /// A client and a server that have shaken hands.
    fn pair() -> ((Session, Pipe), (Session, Pipe)) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = SingleCertAndKey::from(identity(&provider));
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(own));
        let believes = Believes(provider.signature_verification_algorithms);
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(believes))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut a = Session::new(ClientConnection::new(Arc::new(client), name).unwrap());
        let mut b = Session::new(ServerConnection::new(Arc::new(server)).unwrap());
        let (mut at_a, mut at_b) = (Pipe::default(), Pipe::default());
        for _ in 0..4 {
            (at_a.room, at_b.room) = (1 << 20, 1 << 20);
            a.shake(&mut at_a).unwrap();
            at_b.input.extend(at_a.output.drain(..));
            b.shake(&mut at_b).unwrap();
            at_a.input.extend(at_b.output.drain(..));
        }
        assert!(!a.is_handshaking() && !b.is_handshaking());
        // What comes after a handshake is no content.
        assert_eq!(a.read(&mut at_a, &mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
        ((a, at_a), (b, at_b))
    }

    #[test]
    fn what_is_taken_was_sent_whole() {
        let ((mut a, mut at_a), (mut b, mut at_b)) = pair();
        let sent: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let (mut from, mut received, mut buf) = (0, Vec::new(), vec![0; 7000]);
        // The socket takes odd amounts, and the peer reads odd amounts.
        while received.len() < sent.len() {
            at_a.room = 9_973;
            match a.write_one(&mut at_a, &sent[from..]) {
                Ok(n) => from += n,
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            at_b.input.extend(at_a.output.drain(..));
            loop {
                match b.read(&mut at_b, &mut buf) {
                    Ok(n) => received.extend_from_slice(&buf[..n]),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
                assert!(from <= received.len() + buf.len() + 4 * 16_384, "what was taken is on its way");
            }
        }
        assert_eq!((received, from), (sent.clone(), sent.len()));
    }

    /// An event that says that more has come finds bytes that were decrypted before: it is not lost on them.
    #[test]
    fn what_came_behind_decrypted_bytes_is_read_too() {
        let ((mut a, mut at_a), (mut b, mut at_b)) = pair();
        at_a.room = 1 << 20;
        a.write_one(&mut at_a, &[1; 10_000]).unwrap();
        at_b.input.extend(at_a.output.drain(..));
        let mut buf = vec![0; 6_000];
        assert_eq!(b.read(&mut at_b, &mut buf).unwrap(), 6_000);
        assert!(b.has_more());
        a.write_one(&mut at_a, &[2; 1_000]).unwrap();
        at_b.input.extend(at_a.output.drain(..));
        assert_eq!(b.read(&mut at_b, &mut buf).unwrap(), 5_000);
        assert!(!b.has_more(), "everything was read");
    }

    #[test]
    fn the_end_is_seen_although_the_socket_stays_open() {
        let ((mut a, mut at_a), (mut b, mut at_b)) = pair();
        at_a.room = 1 << 20;
        a.write_one(&mut at_a, b"bye").unwrap();
        a.end();
        a.send(&mut at_a).unwrap();
        at_b.input.extend(at_a.output.drain(..));
        let mut buf = [0; 10];
        assert_eq!(b.read(&mut at_b, &mut buf).unwrap(), 3);
        assert!(b.has_more());
        assert_eq!(b.read(&mut at_b, &mut buf).unwrap(), 0);
    }

    #[test]
    fn what_is_no_record_ends_the_connection() {
        let ((mut a, mut at_a), (mut b, mut at_b)) = pair();
        at_a.room = 1 << 20;
        a.write_one(&mut at_a, b"well").unwrap();
        at_b.input.extend(at_a.output.drain(..));
        at_b.input.extend([0x17, 3, 3, 0, 20].into_iter().chain([0; 20]));
        let mut buf = [0; 10];
        assert_eq!(b.read(&mut at_b, &mut buf).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}

//! The protocol's packets over any stream of bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// A payload of this length goes on in the next packet (MySQL source documentation, "MySQL Packets").
const FULL: usize = 0xff_ffff;
/// The greatest `max_allowed_packet`, and room for the headers of an event of that size.
const LARGEST_BYTES: usize = (1 << 30) + (1 << 16);
const READ_AHEAD_BYTES: usize = 64 << 10;

/// What packets go over: TCP, TLS over it, or a socket.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Wire for T {}

pub(super) struct Packets {
    wire: BufReader<Box<dyn Wire>>,
    /// Of the next packet, in either direction.
    sequence: u8,
    /// Header of the packet at hand, as far as it has come.
    header: [u8; 4],
    header_bytes: usize,
    /// Bytes of the packet at hand that have not come; `None` while its header is being read.
    left: Option<usize>,
    payload: Vec<u8>,
}

impl Packets {
    pub fn over(wire: Box<dyn Wire>) -> Packets {
        Packets {
            wire: BufReader::with_capacity(READ_AHEAD_BYTES, wire),
            sequence: 0,
            header: [0; 4],
            header_bytes: 0,
            left: None,
            payload: Vec::new(),
        }
    }

    /// Goes on over another wire, made from this one, with the same count of packets.
    ///
    /// # Errors
    ///
    /// Bytes that came too early: somebody on the way put them before the encryption.
    pub fn into_wire(self) -> io::Result<(Box<dyn Wire>, u8)> {
        if !self.wire.buffer().is_empty() || self.header_bytes > 0 || self.left.is_some() {
            return Err(bad("data before the encryption began"));
        }
        Ok((self.wire.into_inner(), self.sequence))
    }

    pub fn resume(wire: Box<dyn Wire>, sequence: u8) -> Packets {
        Packets { sequence, ..Packets::over(wire) }
    }

    /// The next whole payload. Dropping the future loses nothing.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let left = match self.left {
                Some(left) => left,
                None => self.read_header().await?,
            };
            if left > 0 {
                let read = (&mut self.wire).take(left as u64).read_buf(&mut self.payload).await?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.left = Some(left - read);
                continue;
            }
            self.left = None;
            if self.length() < FULL {
                return Ok(std::mem::take(&mut self.payload));
            }
        }
    }

    async fn read_header(&mut self) -> io::Result<usize> {
        while self.header_bytes < self.header.len() {
            let read = self.wire.read(&mut self.header[self.header_bytes..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.header_bytes += read;
        }
        if self.header[3] != self.sequence {
            return Err(bad("a packet out of order"));
        }
        let length = self.length();
        if self.payload.len() + length > LARGEST_BYTES {
            return Err(bad("a packet larger than the protocol allows"));
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.header_bytes = 0;
        self.left = Some(length);
        self.payload.reserve_exact(length);
        Ok(length)
    }

    fn length(&self) -> usize {
        usize::from(self.header[0]) | usize::from(self.header[1]) << 8 | usize::from(self.header[2]) << 16
    }

    /// Sends a payload as the next one of the exchange at hand.
    pub async fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut rest = payload;
        loop {
            let (now, later) = rest.split_at(rest.len().min(FULL));
            let length = (now.len() as u32).to_le_bytes();
            let mut packet = Vec::with_capacity(4 + now.len());
            packet.extend([length[0], length[1], length[2], self.sequence]);
            packet.extend(now);
            self.wire.write_all(&packet).await?;
            self.sequence = self.sequence.wrapping_add(1);
            if now.len() < FULL {
                return self.wire.flush().await;
            }
            rest = later;
        }
    }

    /// Sends a payload that begins an exchange.
    pub async fn command(&mut self, payload: &[u8]) -> io::Result<()> {
        self.sequence = 0;
        self.write(payload).await
    }
}

/// The server, or what stands between, does not speak the protocol.
pub(super) fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pair() -> (Packets, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 10);
        (Packets::over(Box::new(near)), far)
    }

    /// Every byte alone, and a reader that gives up waiting between them.
    #[tokio::test]
    async fn impatience_loses_nothing() {
        let (mut packets, mut far) = pair();
        let sent = [&[5, 0, 0, 0][..], b"first", &[0, 0, 0, 1], &[6, 0, 0, 2], b"second"].concat();
        let mut came = Vec::new();
        for byte in sent {
            far.write_all(&[byte]).await.unwrap();
            while let Ok(packet) = tokio::time::timeout(Duration::from_millis(1), packets.read()).await {
                came.push(packet.unwrap());
            }
        }
        assert_eq!(came, [b"first".to_vec(), vec![], b"second".to_vec()]);
    }

    #[tokio::test]
    async fn what_is_longer_than_a_packet_goes_on_in_the_next() {
        for length in [FULL - 1, FULL, FULL + 5, 2 * FULL] {
            let ((mut packets, far), sent) = (pair(), (0..length).map(|i| (i % 253) as u8).collect::<Vec<_>>());
            let mut far = Packets::over(Box::new(far));
            let (written, read) = tokio::join!(far.write(&sent), packets.read());
            written.unwrap();
            assert!(read.unwrap() == sent, "{length}");
        }
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        let (mut packets, mut far) = pair();
        far.write_all(&[1, 0, 0, 3, 9]).await.unwrap();
        assert_eq!(packets.read().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (mut packets, mut far) = pair();
        far.write_all(&[9, 0, 0, 0, 9]).await.unwrap();
        drop(far);
        assert_eq!(packets.read().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        // What comes in clear behind the greeting is not taken for what the encryption holds.
        let (mut packets, mut far) = pair();
        far.write_all(&[1, 0, 0, 0, 9, 1, 0, 0, 2, 0]).await.unwrap();
        packets.read().await.unwrap();
        assert!(packets.into_wire().is_err());
    }
}

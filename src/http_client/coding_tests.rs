#![allow(clippy::unwrap_used)]

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::*;

const TEXT: &[u8] =
    b"data: {\"choices\": [{\"delta\": {\"content\": \"Hello, hello, hello\"}}]}\n\ndata: [DONE]\n\n";
/// [`TEXT`], packed by the reference implementation of brotli.
const BROTLI: &[u8] = &[
    0x1B, 0x51, 0x00, 0x18, 0x9C, 0x07, 0x76, 0x2C, 0x18, 0x87, 0x92, 0xCC, 0x60, 0xA6, 0x2F, 0x10, 0x5C,
    0x5F, 0x8B, 0x6C, 0xA1, 0xED, 0x4D, 0x85, 0xAE, 0xBE, 0xD4, 0x11, 0xE9, 0x0B, 0x10, 0xA7, 0xDC, 0x02,
    0xD6, 0xB6, 0xA4, 0xC0, 0xF2, 0x83, 0xFC, 0x22, 0x77, 0x83, 0x03, 0xCC, 0xC2, 0x28, 0xCA, 0x3C, 0x0C,
    0xC0, 0xD7, 0x49, 0xE3, 0x26, 0x0F, 0x5D, 0xBD, 0x13, 0x19, 0xC4, 0x8F, 0xF5, 0x0F, 0xBB, 0x6F, 0x52,
    0x75, 0x22, 0x6E, 0x00,
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn unpack(label: &str, body: &[u8], size: usize) -> Result<Vec<u8>, CodingError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, label.parse().unwrap());
    let mut unpacker = Unpacker::new(&headers);
    let mut all = Vec::new();
    for piece in body.chunks(size) {
        all.extend(unpacker.push(piece, 10_000)?);
    }
    all.extend(unpacker.finish(10_000)?);
    Ok(all)
}

#[test]
fn every_coding_is_unpacked_in_pieces_of_any_size_whatever_its_label_says() {
    let cases: [(&str, Vec<u8>); 16] = [
        ("gzip", gzip(TEXT)),
        ("x-gzip", gzip(TEXT)),
        ("", gzip(TEXT)),
        ("br", gzip(TEXT)),
        ("deflate", zlib(TEXT)),
        ("deflate", deflate(TEXT)),
        ("br", BROTLI.to_vec()),
        ("gzip, gzip", gzip(&gzip(TEXT))),
        ("br, gzip", gzip(BROTLI)),
        ("gzip", TEXT.to_vec()),
        ("deflate", TEXT.to_vec()),
        ("br", TEXT.to_vec()),
        ("zstd", TEXT.to_vec()),
        ("utf-8", TEXT.to_vec()),
        ("identity", TEXT.to_vec()),
        ("gzip", [gzip(&TEXT[..20]), gzip(&TEXT[20..])].concat()),
    ];
    for (label, body) in cases {
        for size in [1, 2, 5, 16, 1_000] {
            let unpacked = unpack(label, &body, size).unwrap();
            assert_eq!(String::from_utf8_lossy(&unpacked), String::from_utf8_lossy(TEXT), "{label} {size}");
        }
    }
}

#[test]
fn a_packed_stream_comes_out_as_it_comes_in() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut unpacker = Unpacker::of(vec![Label::Gzip], MAX_LAYERS);
    let mut sent = 0;
    for piece in [&b"data: 1\n\n"[..], b"data: 2\n\n"] {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
        let packed = encoder.get_ref()[sent..].to_vec();
        sent += packed.len();
        assert_eq!(unpacker.push(&packed, 1_000).unwrap(), piece);
    }
}

#[test]
fn what_cannot_be_unpacked_is_an_error_and_what_was_cut_is_short() {
    assert!(matches!(unpack("zstd", b"\x28\xB5\x2F\xFD\x04\x00", 3), Err(CodingError::Unknown(_))));
    assert!(matches!(
        unpack("compress", b"\x1F\x9D\x90\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C", 4),
        Err(CodingError::Unknown(_))
    ));
    assert!(matches!(
        unpack("gzip", &[0x1F, 0x8B, 0xFF, 0xFF, 0, 1, 2, 3, 4, 5, 6, 7], 100),
        Err(CodingError::Broken(_))
    ));
    let bomb = gzip(&vec![b' '; 1_000_000]);
    assert!(matches!(unpack("gzip", &bomb, 100), Err(CodingError::TooLarge)));
    let packed = gzip(TEXT);
    let cut = unpack("gzip", &packed[..packed.len() - 12], 10).unwrap();
    assert!(TEXT.starts_with(&cut) && cut.len() < TEXT.len());
    assert!(unpack("gzip", b"", 1).unwrap().is_empty());
}

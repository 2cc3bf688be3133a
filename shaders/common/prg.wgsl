// The addressed keystream of src/math/prg.rs: ChaCha (RFC 8439) with a zero nonce. Block `counter` holds bytes
// [64 counter, 64 counter + 64) of the stream as sixteen little-endian words: word i is component i % 4 of row i / 4.
//
// A block of ChaCha20 takes 960 operations and 16 additions, of ChaCha8 384 + 16. No branch and no address depends on
// the key.

// Words of a key in memory: eight of the key, the number of rounds (8 or 20), three zeros.
const KEY_WORDS: u32 = 12u;

struct ChachaKey {
    low: vec4<u32>,
    high: vec4<u32>,
    rounds: u32,
}

// Four rows of the state, or of a block.
struct ChachaBlock {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn rotate_left(x: vec4<u32>, n: u32) -> vec4<u32> {
    return (x << vec4(n)) | (x >> vec4(32u - n));
}

// Four quarter rounds side by side.
fn quarter_rounds(x: ChachaBlock) -> ChachaBlock {
    var s = x;
    s.a += s.b;
    s.d = rotate_left(s.d ^ s.a, 16u);
    s.c += s.d;
    s.b = rotate_left(s.b ^ s.c, 12u);
    s.a += s.b;
    s.d = rotate_left(s.d ^ s.a, 8u);
    s.c += s.d;
    s.b = rotate_left(s.b ^ s.c, 7u);
    return s;
}

// Block `counter` of the stream under `key`.
fn chacha_block(key: ChachaKey, counter: u32) -> ChachaBlock {
    let start = ChachaBlock(
        vec4(0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u),
        key.low,
        key.high,
        vec4(counter, 0u, 0u, 0u),
    );
    var s = start;
    for (var round = 0u; round < key.rounds; round += 2u) {
        s = quarter_rounds(s);
        s.b = s.b.yzwx;
        s.c = s.c.zwxy;
        s.d = s.d.wxyz;
        s = quarter_rounds(s);
        s.b = s.b.wxyz;
        s.c = s.c.zwxy;
        s.d = s.d.yzwx;
    }
    return ChachaBlock(s.a + start.a, s.b + start.b, s.c + start.c, s.d + start.d);
}

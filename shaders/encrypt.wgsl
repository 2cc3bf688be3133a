// One-shot encryption: c = a s in the order of the transform, then `intt`, then c += e + 2^o sum_z 2^(w z) m_z.
// No branch and no address depends on the secret, the errors or the message.
//
// Counts: a block of ChaCha20 is about 1000 operations for 8 residues of a, or for 32 halfwords of errors, of which a
// coefficient takes h = ceil(2 eta / 16); a product of two residues is nine more. encrypt_expand reads 8 bytes a residue
// (pairs of s, from the cache after the first block) and writes 4; encrypt_finish reads and writes 4 a residue and reads 4
// a value of the message.

@group(0) @binding(0) var<uniform> params: EncryptPassParams;

@group(0) @binding(1) var<storage, read> values: array<u32>;
@group(0) @binding(2) var<storage, read_write> seen: array<atomic<u32>>;

var<workgroup> group_seen: atomic<u32>;

// seen <- seen | (all values of the message): whether one is too wide, and nothing else about them.
@compute @workgroup_size(256)
fn encrypt_width(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= params.groups {
        return;
    }
    if thread == 0u {
        atomicStore(&group_seen, 0u);
    }
    workgroupBarrier();
    var any = 0u;
    for (var k = 0u; k < 8u; k++) {
        let i = index * 2048u + k * 256u + thread;
        if i < params.len {
            any |= values[i];
        }
    }
    atomicOr(&group_seen, any);
    workgroupBarrier();
    if thread == 0u {
        atomicOr(&seen[0], atomicLoad(&group_seen));
    }
}

@group(0) @binding(1) var<storage, read_write> expanded: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> secret: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> expand_primes: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> expand_key: array<vec4<u32>>;

// Two residues floor(U p / 2^64), times the secret: a vector holds value and quotient of two of its residues.
fn expanded_pair(words: vec4<u32>, s: vec4<u32>, p: u32) -> vec2<u32> {
    return vec2<u32>(
        mul_shoup(scale_word(words.x, words.y, p), s.x, s.y, p),
        mul_shoup(scale_word(words.z, words.w, p), s.z, s.w, p),
    );
}

// c <- a s: a thread makes the eight residues of one block of the key. secret: pairs (value, quotient), [L x N].
@compute @workgroup_size(256)
fn encrypt_expand(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    let i = index * 256u + thread;
    if index >= params.groups || i >= params.len / 8u {
        return;
    }
    let limb = ((8u * i) >> params.degree_log2) % params.limbs;
    let p = expand_primes[limb].x;
    let s = ((limb << params.degree_log2) + ((8u * i) & ((1u << params.degree_log2) - 1u))) / 2u;
    let key = ChachaKey(expand_key[0], expand_key[1], expand_key[2].x);
    let words = chacha_block(key, params.first * (params.limbs << (params.degree_log2 - 3u)) + i);
    expanded[2u * i] = vec4<u32>(expanded_pair(words.a, secret[s], p), expanded_pair(words.b, secret[s + 1u], p));
    expanded[2u * i + 1u] = vec4<u32>(expanded_pair(words.c, secret[s + 2u], p), expanded_pair(words.d, secret[s + 3u], p));
}

@group(0) @binding(1) var<storage, read_write> c: array<u32>;
@group(0) @binding(2) var<storage, read> message: array<u32>;
@group(0) @binding(3) var<storage, read> primes: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> units: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> key: array<vec4<u32>>;

var<workgroup> errors: array<u32, 2048>;

// The ones in the counted bits of both halves of each word, each in its half.
fn ones_of(words: vec4<u32>, mask: u32) -> vec4<u32> {
    return countOneBits(words & vec4<u32>(mask)) + (countOneBits(words & vec4<u32>(mask << 16u)) << vec4<u32>(16u));
}

// The ones of the halfwords of 32 coordinates, two coordinates a word: coordinate 32 line + r in halfword r.
fn ones_of_line(line: u32) -> ChachaBlock {
    let stream = ChachaKey(key[0], key[1], key[2].x);
    let halfwords = (2u * params.eta + 15u) / 16u;
    var ones = ChachaBlock(vec4<u32>(0u), vec4<u32>(0u), vec4<u32>(0u), vec4<u32>(0u));
    for (var h = 0u; h < halfwords; h++) {
        let words = chacha_block(stream, halfwords * line + h);
        let mask = (1u << min(2u * params.eta - 16u * h, 16u)) - 1u;
        ones.a += ones_of(words.a, mask);
        ones.b += ones_of(words.b, mask);
        ones.c += ones_of(words.c, mask);
        ones.d += ones_of(words.d, mask);
    }
    return ones;
}

// Word k of a thread's sixteen lies in place k ^ (thread / 2 mod 16): neighbouring threads meet different banks.
fn put_errors(thread: u32, k: u32, ones: vec4<u32>) {
    let turn = (thread >> 1u) & 15u;
    errors[16u * thread + (k ^ turn)] = ones.x;
    errors[16u * thread + ((k + 1u) ^ turn)] = ones.y;
    errors[16u * thread + ((k + 2u) ^ turn)] = ones.z;
    errors[16u * thread + ((k + 3u) ^ turn)] = ones.w;
}

// e + m of coefficient i of polynomial `block`, modulo the prime of a limb; `drawn` is e + eta.
fn addend(drawn: u32, block: u32, i: u32, limb: u32, p: u32) -> u32 {
    // 2 eta <= 8192 < p: the smallest prime that is 1 mod 2048 is 12289.
    var sum = reduce_once(drawn + p - params.eta, p);
    for (var z = 0u; z < params.slots; z++) {
        let at = ((block * params.slots + z) << params.degree_log2) + i;
        let unit = units[limb * params.slots + z];
        if at < params.values {
            sum = add_mod(sum, mul_shoup(message[at], unit.x, unit.y, p), p);
        }
    }
    return sum;
}

// c += e + m over 4096 coefficients of all limbs. units: pairs (value, quotient) of 2^(o + w z) mod p, [L x k]. A thread
// draws 32 errors.
@compute @workgroup_size(128)
fn encrypt_finish(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= params.groups {
        return;
    }
    let ones = ones_of_line((params.first << (params.degree_log2 - 5u)) + index * 128u + thread);
    put_errors(thread, 0u, ones.a);
    put_errors(thread, 4u, ones.b);
    put_errors(thread, 8u, ones.c);
    put_errors(thread, 12u, ones.d);
    workgroupBarrier();
    for (var k = thread; k < 4096u; k += 128u) {
        let coefficient = index * 4096u + k;
        if coefficient >= params.len {
            break;
        }
        let pair = errors[(k >> 1u) ^ ((k >> 6u) & 15u)];
        let drawn = (pair >> (16u * (k & 1u))) & 0xffffu;
        let block = coefficient >> params.degree_log2;
        let i = coefficient & ((1u << params.degree_log2) - 1u);
        for (var limb = 0u; limb < params.limbs; limb++) {
            let p = primes[limb].x;
            let at = ((block * params.limbs + limb) << params.degree_log2) + i;
            c[at] = add_mod(c[at], addend(drawn, block, i, limb, p), p);
        }
    }
}

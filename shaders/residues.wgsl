// Residues of an RNS basis, [batch x L x N]: the check that they are reduced, and the product entry by entry.
// Counts: 4 bytes read a residue for the check; 8 read (4 and a cached factor, if there is one polynomial for all) and 4
// written for the product, with three wide 32-bit products of four 16-bit ones each.

@group(0) @binding(0) var<uniform> params: ResidueParams;

@group(0) @binding(1) var<storage, read> checked: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> checked_primes: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> first: array<atomic<u32>>;

// first <- max(first, 2^32 - 1 - index) over the residues that are not below their prime: 0 if there is none. A thread
// has four neighbours.
@compute @workgroup_size(256)
fn residues_check(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    let i = 4u * (index * 256u + thread);
    if index >= params.groups || i >= params.len {
        return;
    }
    let prime = checked_primes[(i >> params.degree_log2) % params.limbs].x;
    let bad = checked[i / 4u] >= vec4<u32>(prime);
    if any(bad) {
        let place = select(select(select(3u, 2u, bad.z), 1u, bad.y), 0u, bad.x);
        atomicMax(&first[0], ~(i + place));
    }
}

// a <- a b; b has as many residues as a, or those of one polynomial.
@group(0) @binding(1) var<storage, read_write> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> primes: array<vec4<u32>>;

@compute @workgroup_size(256)
fn residues_multiply(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    let i = 4u * (index * 256u + thread);
    if index >= params.groups || i >= params.len {
        return;
    }
    let prime = primes[(i >> params.degree_log2) % params.limbs];
    let x = a[i / 4u];
    let y = b[(i % params.other_len) / 4u];
    a[i / 4u] = vec4<u32>(mul_prime(x.x, y.x, prime), mul_prime(x.y, y.y, prime), mul_prime(x.z, y.z, prime),
                          mul_prime(x.w, y.w, prime));
}

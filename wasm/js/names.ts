// Names that nobody draws twice.

/** Sixteen random bytes, as 32 digits. */
export function hex(): string {
    let bytes: Uint8Array
    try {
        bytes = crypto.getRandomValues(new Uint8Array(16))
    } catch (cause) {
        // Others must not guess it: whoever knows a document's name can read it.
        throw new Error("this browser draws no random numbers (crypto.getRandomValues)", { cause })
    }
    return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")
}

/**
 * For a document: a UUID of version 4, as stock clients draw. `crypto.randomUUID` is there in secure
 * contexts only.
 */
export function uuid(): string {
    return hex().replace(/(.{8})(.{4}).(.{3}).(.{3})/, "$1-$2-4$3-a$4-")
}

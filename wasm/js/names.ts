// Names that nobody draws twice.

/** Sixteen random bytes, as 32 digits. */
export function hex(): string {
    const bytes = [...crypto.getRandomValues(new Uint8Array(16))]
    return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")
}

/**
 * For a document: a UUID of version 4, as stock clients draw. `crypto.randomUUID` is there in secure
 * contexts only.
 */
export function uuid(): string {
    return hex().replace(/(.{8})(.{4}).(.{3}).(.{3})/, "$1-$2-4$3-a$4-")
}

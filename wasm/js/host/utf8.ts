export function encode(text: string): Uint8Array {
    return new TextEncoder().encode(text)
}

export function decode(data: Uint8Array): string {
    return new TextDecoder().decode(data)
}

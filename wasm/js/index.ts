// What every entry of the package exports.

export { Counter, ImmutableString } from "./counter.js"
export {
    deleteAt,
    insertAt,
    joinBlock,
    mark,
    snapshot,
    splice,
    splitBlock,
    unmark,
    updateBlock,
    updateText,
    type Draft,
    type DraftList,
    type MarkRange,
} from "./draft.js"
export { DocHandle, type ChangeOptions, type HandleEvents, type HistoryOptions, type UndoOptions } from "./handle.js"
export { IndexedDbStorage, requestPersistence, type IndexedDbOptions, type Persistence } from "./indexeddb.js"
export { RepoError } from "./link.js"
export { MemoryStorage } from "./memory.js"
export { Place } from "./place.js"
export {
    Presence,
    type PresenceChannel,
    type PresenceHandle,
    type PresenceOptions,
    type PresencePeer,
} from "./presence.js"
export {
    Repo,
    type FileOptions,
    type FindOptions,
    type DocumentsEvent,
    type RepoEvents,
    type RepoOptions,
    type Token,
    type Unfetched,
    type WipeOptions,
} from "./repo.js"
export {
    StorageError,
    type Chunk,
    type Storage,
    type StorageFailure,
    type StorageKey,
    type StorageWrite,
} from "./storage.js"
export type * from "./types.js"

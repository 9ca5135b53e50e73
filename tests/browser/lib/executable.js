// Programs that the tests need and do not bring.

import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"

/**
 * The path of a program: what the environment variable says, or the first of `names` that is there.
 * Without it the test fails; `debian` is the package that has it.
 */
export function executable(what, { variable, names, debian }) {
  if (process.env[variable]) return process.env[variable]
  for (const name of names) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      const path = join(folder, name)
      try {
        accessSync(path, constants.X_OK)
        return path
      } catch {
        // Not here.
      }
    }
  }
  throw new Error(`there is no ${what}; on Debian: apt-get install ${debian}, or set ${variable} to its path`)
}

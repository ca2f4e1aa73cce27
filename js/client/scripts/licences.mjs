// Puts the licences into the package, which has no copy of its own.

import { copyFileSync } from "node:fs"

for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) {
  copyFileSync(new URL(`../../../${name}`, import.meta.url), new URL(`../${name}`, import.meta.url))
}

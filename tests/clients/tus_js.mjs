// What the scripts that use tus-js-client share. The package is loaded from the directory that
// STORAGE_NODE names, so that nothing is installed beside this file.

import { createRequire } from 'node:module'
import { Buffer } from 'node:buffer'
import { createHash } from 'node:crypto'
import path from 'node:path'

export const env = process.env
export const tus = createRequire(path.join(env.STORAGE_NODE, 'package.json'))('tus-js-client')
export const MIB = 1 << 20
export let passed = 0

export function check(name, good, why = '') {
  if (!good) {
    console.error(`FAILED: ${name} ${why}`)
    process.exit(1)
  }
  passed += 1
  console.log(`ok: ${name}`)
}

export function content(seed, size) {
  const block = createHash('sha512').update(String(seed)).digest()
  const data = Buffer.alloc(size)
  for (let at = 0; at < size; at += block.length) {
    block.copy(data, at)
    if (at + 4 <= size) data.writeUInt32LE(at >>> 0, at)
  }
  return data
}

// The URL that an upload of `size` bytes to `relpath` is made with.
export async function target(relpath, size) {
  const answer = await fetch(`${env.STORAGE_MANAGER}/folder/file/upload`, {
    method: 'POST',
    headers: { 'X-BackendAI-Storage-Auth-Token': env.STORAGE_SECRET },
    body: JSON.stringify({ volume: env.STORAGE_VOLUME, vfid: env.STORAGE_VFID, relpath, size }),
  })
  return `${env.STORAGE_CLIENT}/upload?token=${(await answer.json()).token}`
}

// tus-js-client under Node with what the original does not have: creation by POST, four parallel
// partial uploads that become one file, checksums, termination.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { MIB, check, content, env, passed, target, tus } from './tus_js.mjs'

function upload(data, url, options = {}) {
  const requests = []
  let handle
  const done = new Promise((resolve, reject) => {
    handle = new tus.Upload(data, {
      endpoint: url,
      retryDelays: [0, 10, 100, 500, 1000],
      metadata: { filename: 'x', filetype: 'application/octet-stream' },
      storeFingerprintForResuming: false,
      onError: reject,
      onSuccess: resolve,
      ...options,
      onBeforeRequest: (request) => {
        requests.push(request.getMethod())
        options.onBeforeRequest?.(request)
      },
    })
    handle.start()
  })
  return { handle, done, requests }
}

function arrived(name, relpath, data) {
  const file = path.join(env.STORAGE_FOLDER, relpath)
  check(`${name} arrived`, fs.existsSync(file), file)
  check(`${name} is equal`, fs.readFileSync(file).equals(data))
}

const count = (requests, method) => requests.filter((known) => known === method).length

for (const size of [4, 1000, 16 * MIB, 16 * MIB + 3]) {
  const data = content(size, size)
  const { done, requests } = upload(data, await target(`parallel-${size}`, size), {
    parallelUploads: 4,
    chunkSize: 3 * MIB,
  })
  await done
  check('four pieces and one whole are created', count(requests, 'POST') === 5, requests)
  arrived(`${size} bytes in four pieces`, `parallel-${size}`, data)
}

{
  // Pieces in an order of the client's own, which is not that of the file.
  const data = content('bounds', 1000)
  const parts = [
    { start: 0, end: 700 },
    { start: 700, end: 800 },
    { start: 800, end: 1000 },
  ]
  const options = { parallelUploads: 3, parallelUploadBoundaries: parts }
  await upload(data, await target('bounds', 1000), options).done
  arrived('pieces of other lengths', 'bounds', data)
}

{
  // One at a time, created by POST, then in chunks.
  const data = content('created', 5 * MIB)
  const { done, requests } = upload(data, await target('created', data.length), {
    chunkSize: 2 * MIB,
  })
  await done
  check('POST, then PATCH', requests.join() === 'POST,PATCH,PATCH,PATCH', requests)
  arrived('an upload that was created', 'created', data)
}

{
  // The first bytes with the POST.
  const data = content('with', 5 * MIB)
  const { done, requests } = upload(data, await target('with', data.length), {
    chunkSize: 2 * MIB,
    uploadDataDuringCreation: true,
  })
  await done
  check('the first bytes go with the POST', requests.join() === 'POST,PATCH,PATCH', requests)
  arrived('an upload that was created with data', 'with', data)
}

{
  // A length that is told with the last chunk.
  const data = content('deferred', 5 * MIB)
  await upload(data, await target('deferred', data.length), {
    chunkSize: 2 * MIB,
    uploadLengthDeferred: true,
  }).done
  arrived('an upload whose length came late', 'deferred', data)
}

{
  // Every PATCH with the SHA-1 of its chunk; the first one lies once, and is sent again.
  const data = content('sums', 5 * MIB)
  const chunkSize = 2 * MIB
  let lies = 1
  const statuses = []
  await upload(data, await target('sums', data.length), {
    chunkSize,
    onBeforeRequest: (request) => {
      if (request.getMethod() !== 'PATCH') return
      const at = Number(request.getHeader('Upload-Offset'))
      const hash = createHash('sha1').update(data.subarray(at, at + chunkSize))
      if (lies > 0) hash.update('a lie')
      lies -= 1
      request.setHeader('Upload-Checksum', `sha1 ${hash.digest('base64')}`)
    },
    onShouldRetry: () => true,
    onAfterResponse: (request, answer) => statuses.push(answer.getStatus()),
  }).done
  check('the lie was found', statuses.includes(460), statuses)
  arrived('an upload with checksums', 'sums', data)
}

{
  // Ended on purpose: nothing is left.
  const data = content('ended', 16 * MIB)
  const url = await target('ended', data.length)
  const { handle, done } = upload(data, url, {
    chunkSize: MIB,
    onProgress: (sent) => {
      if (sent > 4 * MIB && !handle._aborted) handle.abort(true).then(() => finish(), fail)
    },
  })
  let finish
  let fail
  const ended = new Promise((resolve, reject) => {
    finish = resolve
    fail = reject
  })
  done.catch(() => {})
  await ended
  const answer = await fetch(url, { method: 'HEAD' })
  check('a terminated upload is gone', answer.status === 404, answer.status)
}

check('nothing is left in .upload', !fs.existsSync(path.join(env.STORAGE_FOLDER, '.upload')))
console.log(`${passed} passed, 0 failed`)
process.exit(0)

// tus-js-client under Node, as the Web UI uses it: uploadUrl and endpoint are the same URL,
// HEAD first, PATCH in chunks, aborted and resumed.

import { Buffer } from 'node:buffer'
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { MIB, check, content, env, passed, target, tus } from './tus_js.mjs'

function upload(data, url, options = {}) {
  const requests = []
  let handle
  const done = new Promise((resolve, reject) => {
    handle = new tus.Upload(data, {
      endpoint: url,
      uploadUrl: url,
      chunkSize: 5 * MIB,
      retryDelays: [0, 10, 100, 500, 1000, 2000],
      metadata: { filename: 'x', filetype: 'application/octet-stream' },
      storeFingerprintForResuming: false,
      onBeforeRequest: (request) => requests.push(request.getMethod()),
      onError: reject,
      onSuccess: resolve,
      ...options,
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

// A proxy that cuts the first `cuts` PATCHes after some bytes of their body.
function cutting(cuts, bytes) {
  const far = new URL(env.STORAGE_CLIENT)
  let left = cuts
  const server = http.createServer((request, response) => {
    const onward = http.request(
      { host: far.hostname, port: far.port, path: request.url, method: request.method, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers)
        answer.pipe(response)
      },
    )
    onward.on('error', () => response.destroy())
    if (request.method === 'PATCH' && left > 0) {
      left -= 1
      let seen = 0
      request.on('data', (part) => {
        onward.write(part)
        seen += part.length
        if (seen > bytes) {
          onward.destroy()
          request.destroy()
        }
      })
    } else {
      request.pipe(onward)
    }
  })
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const base = `http://127.0.0.1:${server.address().port}`
      resolve({ server, base, left: () => left })
    })
  })
}

for (const size of [1, 16 * MIB, 16 * MIB + 1]) {
  const data = content(size, size)
  const { done, requests } = upload(data, await target(`size-${size}`, size))
  await done
  check('HEAD comes first, then PATCH', requests[0] === 'HEAD' && requests[1] === 'PATCH', requests)
  check('never POST', !requests.includes('POST'), requests)
  arrived(`${size} bytes`, `size-${size}`, data)
}

{
  // HEAD says 0 of 0: the library calls that done, so the file must exist already.
  const { done, requests } = upload(Buffer.alloc(0), await target('empty', 0))
  await done
  arrived(`an empty file after ${requests}`, 'empty', Buffer.alloc(0))
}

for (const name of ['with blanks .bin', 'quotes " and \'.bin', '한글 이름.bin']) {
  const data = content(name, 300000)
  await upload(data, await target(`n/${name}`, data.length)).done
  arrived(name, `n/${name}`, data)
}

{
  // Aborted in the middle of a PATCH, then taken up by a new Upload: what HEAD tells counts.
  const data = content('abort', 40 * MIB)
  const url = await target('abort', data.length)
  const first = upload(data, url, {
    chunkSize: 30 * MIB,
    onProgress: (sent) => {
      if (sent > 10 * MIB) first.handle.abort()
    },
  })
  first.done.catch(() => {})
  await new Promise((resolve) => {
    const look = setInterval(() => {
      if (first.handle._aborted) {
        clearInterval(look)
        resolve()
      }
    }, 5)
  })
  const offsets = []
  const second = upload(data, url, {
    onAfterResponse: (request, answer) => {
      if (request.getMethod() === 'HEAD') offsets.push(Number(answer.getHeader('Upload-Offset')))
    },
  })
  await second.done
  check('a HEAD told where to go on', offsets.length > 0 && offsets[0] <= 30 * MIB, offsets)
  arrived(`an aborted upload, resumed at ${offsets}`, 'abort', data)
}

{
  // Connections break under the library's feet: it asks HEAD and goes on by itself.
  const data = content('cut', 24 * MIB)
  const proxy = await cutting(3, 2 * MIB)
  const url = (await target('cut', data.length)).replace(env.STORAGE_CLIENT, proxy.base)
  await upload(data, url, { chunkSize: 8 * MIB }).done
  check('three PATCHes were cut', proxy.left() === 0, proxy.left())
  proxy.server.close()
  proxy.server.closeAllConnections()
  arrived('an upload with cut connections', 'cut', data)
}

{
  // Two files at a time, as the Web UI does.
  const names = ['pair-a', 'pair-b']
  const sent = names.map((name) => content(name, 12 * MIB))
  const urls = await Promise.all(names.map((name, i) => target(name, sent[i].length)))
  await Promise.all(urls.map((url, i) => upload(sent[i], url, { chunkSize: 2 * MIB }).done))
  names.forEach((name, i) => arrived(name, name, sent[i]))
}

check('nothing is left in .upload', !fs.existsSync(path.join(env.STORAGE_FOLDER, '.upload')))
console.log(`${passed} passed, 0 failed`)
process.exit(0)

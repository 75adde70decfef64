// @tus/server with its file store, as its README sets it up: one process, since its locks live in
// the memory of one process.
//
//   node server.mjs DIRECTORY PORT
//
// An upload is named by the `filename` of its metadata, so that the bench suite finds it on disk.
import { FileStore } from '@tus/file-store';
import { Server } from '@tus/server';

const [directory, port] = process.argv.slice(2);

const server = new Server({
  path: '/files',
  relativeLocation: true,
  datastore: new FileStore({ directory }),
  namingFunction: (_, metadata) => metadata.filename,
});

server.listen({ host: '127.0.0.1', port: Number(port) });

/** Everything that a Connect, gRPC or gRPC-Web client may speak, over HTTP/1.1 and HTTP/2. Loaded on demand. */
import type { RequestListener } from 'node:http';
import { createServer, type Http2Server } from 'node:http2';
import type { DescService } from '@bufbuild/protobuf';
import { Code, ConnectError, type ServiceImpl } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { publicError, type RpcCode } from '../error-mapping.ts';
import { ErrorDetailSchema } from '../gen/arcbox/v1/error_pb.ts';
import { MESSAGE_BYTES_MAX } from '../limits.ts';
import type { Registration } from './registration.ts';

const CODES: Readonly<Record<RpcCode, Code>> = {
  invalid_argument: Code.InvalidArgument,
  failed_precondition: Code.FailedPrecondition,
  out_of_range: Code.OutOfRange,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  resource_exhausted: Code.ResourceExhausted,
  internal: Code.Internal,
  unavailable: Code.Unavailable,
};

export interface FullServer {
  readonly http1: RequestListener;
  readonly http2: Http2Server;
}

export function createFullServer(registrations: readonly Registration[]): FullServer {
  const handler = connectNodeAdapter({
    routes: (router) => {
      for (const { service, implementation } of registrations) {
        router.service(service, implementation as ServiceImpl<DescService>);
      }
    },
    readMaxBytes: MESSAGE_BYTES_MAX,
    interceptors: [
      (next) => async (request) => {
        try {
          const response = await next(request);
          return response.stream ? { ...response, message: mapErrors(response.message) } : response;
        } catch (error) {
          throw toConnectError(error);
        }
      },
    ],
  });
  const http2 = createServer(handler);
  http2.on('sessionError', () => {
    // The session is destroyed with its socket; a client's broken connection is its own affair.
  });
  return { http1: handler, http2 };
}

/** A stream's errors come when it is read. */
async function* mapErrors<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw toConnectError(error);
  }
}

function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  const { code, rpcCode, message, exitCode } = publicError(error);
  const detail = { desc: ErrorDetailSchema, value: { code, exitCode } };
  return new ConnectError(message, CODES[rpcCode], undefined, [detail], error);
}

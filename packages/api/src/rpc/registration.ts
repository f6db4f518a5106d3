/** A service and what answers its methods, for both ways in which it is served. */
import type { DescMessage, DescService, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';

export interface Registration {
  readonly service: DescService;
  readonly implementation: object;
}

export function registration<Service extends DescService>(
  service: Service,
  implementation: ServiceImpl<Service>,
): Registration {
  return { service, implementation };
}

/** A method that takes one message and answers with one. */
export interface UnaryMethod {
  readonly input: DescMessage;
  readonly output: DescMessage;
  call(request: MessageShape<DescMessage>): Promise<MessageInitShape<DescMessage>>;
}

/** Every unary method, by its path: `/arcbox.v1.ContainerService/Create`. */
export function unaryMethods(registrations: readonly Registration[]): Map<string, UnaryMethod> {
  const methods = new Map<string, UnaryMethod>();
  for (const { service, implementation } of registrations) {
    for (const { methodKind, name, localName, input, output } of service.methods) {
      if (methodKind !== 'unary') continue;
      // `registration` has checked that it is there and what it takes.
      const answer = Reflect.get(implementation, localName) as (
        request: unknown,
      ) => MessageInitShape<DescMessage>;
      methods.set(`/${service.typeName}/${name}`, {
        input,
        output,
        call: async (request) => answer.call(implementation, request),
      });
    }
  }
  return methods;
}

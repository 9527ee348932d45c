import { Directive, directive, PartType, type ElementPart, type PartInfo } from "lit/directive.js";
import { noChange } from "lit";

/**
 * Sets custom properties of an element through its style object. A `style` attribute, which Lit's own `styleMap`
 * writes at first, is forbidden by the content security policy.
 */
class Cssom extends Directive {
  constructor(part: PartInfo) {
    super(part);
    if (part.type !== PartType.ELEMENT) throw new TypeError("cssom() belongs on an element");
  }

  render(_properties: Record<string, string>): typeof noChange {
    return noChange;
  }

  override update(part: ElementPart, [properties]: [Record<string, string>]): typeof noChange {
    const { style } = part.element as HTMLElement;
    for (const [name, value] of Object.entries(properties)) style.setProperty(name, value);
    return noChange;
  }
}

export const cssom = directive(Cssom);

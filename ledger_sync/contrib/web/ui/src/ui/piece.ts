import { LitElement } from "lit";
import { property } from "lit/decorators.js";
import { langOf } from "../i18n";
import { WORDS, type Words } from "./words";

/** A part of the dialog or the console. It is told in which language to speak. */
export class Piece extends LitElement {
  @property({ attribute: false }) words: Words = WORDS.en;
}

/** An element that a page uses by itself. It speaks the language of its `lang` attribute or of what is around it. */
export class Whole extends LitElement {
  @property() override lang = "";

  private readonly documentLang = new MutationObserver(() => this.requestUpdate());

  override connectedCallback(): void {
    super.connectedCallback();
    this.documentLang.observe(document.documentElement, { attributeFilter: ["lang"] });
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.documentLang.disconnect();
  }

  protected get words(): Words {
    const around = this.parentElement?.closest<HTMLElement>("[lang]")?.lang;
    return WORDS[langOf(this.lang || around || document.documentElement.lang)];
  }
}

/** Register an element, unless a page that loads the script twice has done so. */
export function define(name: string, element: CustomElementConstructor): void {
  if (!customElements.get(name)) customElements.define(name, element);
}
